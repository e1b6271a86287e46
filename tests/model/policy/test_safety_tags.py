"""Safety tags in the prompts limit the rating of a picture."""

from dataclasses import replace
from itertools import product

import pytest

from model.card import load_card
from model.errors import PolicyBlocked
from model.policy.policy import PolicyDecision, load_policy
from model.policy.safety_tags import enforce_rating
from model.rating import RATINGS, Rating
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_request

CARD = load_card("kirazuri-v1")
ALL_ABOVE_SAFE = "sensitive, nsfw, explicit"


def resolved(prompt: str, negative: str = "lowres") -> ResolvedRequest:
    return resolve_request(GenerationRequest(prompt=prompt, negative_prompt=negative), CARD, seed=0)


def limited(prompt: str, negative: str = "lowres", *, ceiling: Rating = "safe") -> tuple[str, str]:
    request = resolved(prompt, negative)
    decision = load_policy().check(prompt, negative, ceiling=ceiling)
    after, warning = enforce_rating(request, decision, CARD.prompting)
    assert (warning is None) is (after == request)
    assert after == request.model_copy(
        update={"prompt": after.prompt, "negative_prompt": after.negative_prompt}
    )
    return after.prompt, after.negative_prompt


def test_the_lowest_ceiling_adds_safe_and_excludes_the_other_ratings() -> None:
    assert limited("1girl") == ("safe, 1girl", f"{ALL_ABOVE_SAFE}, lowres")
    assert limited("1girl", "") == ("safe, 1girl", ALL_ABOVE_SAFE)


def test_the_warning_names_the_added_tags() -> None:
    _, warning = enforce_rating(resolved("1girl"), PolicyDecision("safe", "safe"), CARD.prompting)
    assert warning is not None
    assert (warning.code, warning.detail) == (
        "rating_held",
        "added safe to the prompt and added sensitive, nsfw, explicit to the negative prompt "
        "to limit the rating to safe",
    )


def test_higher_ceilings_add_the_requested_rating() -> None:
    cases: list[tuple[str, Rating, str, str]] = [
        ("1girl", "nsfw", "safe, 1girl", "explicit, lowres"),
        ("1girl, cleavage", "nsfw", "sensitive, 1girl, cleavage", "explicit, lowres"),
        ("1girl, nude", "nsfw", "nsfw, 1girl, nude", "explicit, lowres"),
        ("sensitive, 1girl", "sensitive", "sensitive, 1girl", "nsfw, explicit, lowres"),
        ("1girl, nude", "explicit", "1girl, nude", "lowres"),
        ("child, park", "explicit", "safe, child, park", f"{ALL_ABOVE_SAFE}, lowres"),
    ]
    for prompt, ceiling, expected, negative in cases:
        assert limited(prompt, ceiling=ceiling) == (expected, negative)


def test_existing_tags_are_not_added_again() -> None:
    for prompt in ("1girl, safe", "SAFE,1girl", "(safe:1.2), 1girl", "(safe), x",
                   "1girl\nsafe\nx", "a (b), safe"):  # fmt: skip
        assert limited(prompt, ALL_ABOVE_SAFE) == (prompt, ALL_ABOVE_SAFE)


def test_tags_without_full_weight_do_not_count() -> None:
    for prompt in ("(safe:0.1), 1girl", "un(safe:1.2)", "(un:1.2)safe", "safe house",
                   "(x, safe:0.5)"):  # fmt: skip
        assert limited(prompt)[0] == f"safe, {prompt}"


def test_a_partial_negative_prompt_is_completed() -> None:
    assert limited("safe", "nsfw, (explicit:0.2)")[1] == "sensitive, explicit, nsfw, (explicit:0.2)"


def test_only_tags_of_the_card_are_used() -> None:
    tiny = load_card("kirazuri-tiny").prompting
    request, decision = resolved("1girl"), PolicyDecision("safe", "safe")
    after, _ = enforce_rating(request, decision, tiny)
    assert (after.prompt, after.negative_prompt) == ("safe, 1girl", "lowres")
    none = tiny.model_copy(update={"safety": ()})
    assert enforce_rating(request, decision, none) == (request, None)
    nsfw = replace(decision, requested="nsfw", limit="nsfw")
    assert enforce_rating(request, nsfw, tiny) == (request, None)


@pytest.mark.parametrize(
    ("words", "ceiling"), [*product(["1girl", "1girl, nude", "child"], RATINGS)]
)
def test_limiting_a_second_time_changes_nothing(words: str, ceiling: Rating) -> None:
    try:
        prompt, negative = limited(words, ceiling=ceiling)
    except PolicyBlocked:
        assert (words, ceiling) in {("1girl, nude", "safe"), ("1girl, nude", "sensitive")}
        return
    assert limited(prompt, negative, ceiling=ceiling) == (prompt, negative)
