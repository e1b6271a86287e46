"""The checkpoint's own safety tags hold a picture to a rating, where everybody can see it."""

from dataclasses import replace
from itertools import product

import pytest

from model.card import load_card
from model.errors import PolicyBlocked
from model.policy.policy import PolicyDecision, load_policy
from model.policy.safety_tags import enforce_rating
from model.rating import RATINGS, Rating
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve

CARD = load_card("kirazuri-v1")
POLICY = load_policy()
ALL_ABOVE_SAFE = "sensitive, nsfw, explicit"


def resolved(prompt: str, negative: str = "lowres") -> ResolvedRequest:
    return resolve(GenerationRequest(prompt=prompt, negative_prompt=negative), CARD, seed=0)


def held(prompt: str, negative: str = "lowres", *, ceiling: Rating = "safe") -> tuple[str, str]:
    request = resolved(prompt, negative)
    judgement = POLICY.check(prompt, negative, ceiling=ceiling)
    after, warning = enforce_rating(request, judgement, CARD.prompting)
    assert (warning is None) is (after == request)
    assert after == request.model_copy(
        update={"prompt": after.prompt, "negative_prompt": after.negative_prompt}
    )
    return after.prompt, after.negative_prompt


def test_the_lowest_ceiling_says_safe_and_steers_away_from_the_rest() -> None:
    assert held("1girl") == ("safe, 1girl", f"{ALL_ABOVE_SAFE}, lowres")
    assert held("1girl", "") == ("safe, 1girl", ALL_ABOVE_SAFE)


def test_the_warning_says_what_was_put_in() -> None:
    _, warning = enforce_rating(resolved("1girl"), PolicyDecision("safe", "safe"), CARD.prompting)
    assert warning is not None
    assert (warning.code, warning.detail) == (
        "rating_held",
        "added safe to the prompt and added sensitive, nsfw, explicit to the negative prompt "
        "to limit the rating to safe",
    )


@pytest.mark.parametrize(
    ("prompt", "ceiling", "expected", "negative"),
    [
        ("1girl", "nsfw", "safe, 1girl", "explicit, lowres"),
        ("1girl, cleavage", "nsfw", "sensitive, 1girl, cleavage", "explicit, lowres"),
        ("1girl, nude", "nsfw", "nsfw, 1girl, nude", "explicit, lowres"),
        ("sensitive, 1girl", "sensitive", "sensitive, 1girl", "nsfw, explicit, lowres"),
        ("1girl, nude", "explicit", "1girl, nude", "lowres"),
        ("child, park", "explicit", "safe, child, park", f"{ALL_ABOVE_SAFE}, lowres"),
    ],
)
def test_higher_ceilings_say_what_was_asked_for(
    prompt: str, ceiling: Rating, expected: str, negative: str
) -> None:
    assert held(prompt, ceiling=ceiling) == (expected, negative)


@pytest.mark.parametrize(
    "prompt",
    [
        "1girl, safe",
        "SAFE,1girl",
        "(safe:1.2), 1girl",
        "(safe), x",
        "1girl\nsafe\nx",
        "a (b), safe",
    ],
)
def test_what_is_said_already_is_not_said_twice(prompt: str) -> None:
    assert held(prompt, ALL_ABOVE_SAFE) == (prompt, ALL_ABOVE_SAFE)


@pytest.mark.parametrize(
    "prompt",
    [
        "(safe:0.1), 1girl",
        "un(safe:1.2)",
        "(un:1.2)safe",
        "safe house",
        "(x, safe:0.5)",
    ],
)
def test_what_is_not_said_with_full_weight_is_not_said(prompt: str) -> None:
    assert held(prompt)[0] == f"safe, {prompt}"


def test_a_half_said_negative_is_completed() -> None:
    assert held("safe", "nsfw, (explicit:0.2)")[1] == "sensitive, explicit, nsfw, (explicit:0.2)"


def test_only_tags_of_the_card_are_used() -> None:
    tiny = load_card("kirazuri-tiny").prompting
    request, judgement = resolved("1girl"), PolicyDecision("safe", "safe")
    after, _ = enforce_rating(request, judgement, tiny)
    assert (after.prompt, after.negative_prompt) == ("safe, 1girl", "lowres")
    none = tiny.model_copy(update={"safety": ()})
    assert enforce_rating(request, judgement, none) == (request, None)
    nsfw = replace(judgement, requested="nsfw", limit="nsfw")
    assert enforce_rating(request, nsfw, tiny) == (request, None)


@pytest.mark.parametrize(
    ("asked", "ceiling"), [*product(["1girl", "1girl, nude", "child"], RATINGS)]
)
def test_what_is_held_is_judged_the_same_and_needs_no_more(asked: str, ceiling: Rating) -> None:
    try:
        prompt, negative = held(asked, ceiling=ceiling)
    except PolicyBlocked:
        assert (asked, ceiling) in {("1girl, nude", "safe"), ("1girl, nude", "sensitive")}
        return
    assert held(prompt, negative, ceiling=ceiling) == (prompt, negative)
