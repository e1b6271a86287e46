"""Structured tags become a prompt as the checkpoint was trained on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.card import load_card
from model.card_request import request_type
from model.prompt_grammar import MAX_PROMPT_CHARS, parse_prompt
from model.resolved_request import resolve_request
from model.tags import (
    MAX_TAG_CHARS,
    MAX_TAGS,
    Tags,
    assemble_prompt,
    escape_tag,
    max_prompt_length,
    replace_underscores,
)

CARD = load_card("kirazuri-v1")
EMOTICONS = [
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o",
    "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||", ";_;", "T_T", "-_-", "^_^;", r"\_/",
]  # fmt: skip


def prompt_of(tags: dict[str, Any], prompt: str | None = None) -> str:
    request = request_type(CARD).model_validate({"tags": tags, "prompt": prompt})
    return resolve_request(request, CARD, seed=1).prompt


def test_groups_are_in_the_cards_order_before_the_prose() -> None:
    tags = {
        "general": ["long_hair", "smile"],
        "artist": ["wlop", "@ask_(askzy)"],
        "series": ["vocaloid"],
        "character": ["hatsune_miku_(vocaloid)"],
        "subject": ["1girl", "solo"],
        "safety": ["safe"],
        "meta": ["absurdres"],
        "quality": ["masterpiece", "best quality"],
    }
    assert prompt_of(tags, "She sings (loudly:1.2).") == (
        r"masterpiece, best quality, absurdres, safe, 1girl, solo, hatsune miku \(vocaloid\), "
        r"vocaloid, @wlop, @ask \(askzy\), long hair, smile, She sings (loudly:1.2)."
    )


def test_order_and_artist_prefix_come_from_the_card() -> None:
    prompting = CARD.prompting.model_copy(
        update={
            "tag_order": (
                "artist", "general", "quality", "meta", "safety", "subject", "character", "series"
            ),
            "artist_prefix": "by ",
        }
    )  # fmt: skip
    tags = Tags(quality=["masterpiece"], artist=["wlop", "by ask"], general=["hat"])
    assert assemble_prompt(tags, prompting, "") == "by wlop, by ask, hat, masterpiece"


def test_without_tags_the_prompt_is_unchanged() -> None:
    assert assemble_prompt(None, CARD.prompting, " a_b, (c) ") == " a_b, (c) "
    assert prompt_of({}, "a_b,  (c)") == "a_b,  (c)"
    assert prompt_of({"general": ["hat"]}) == prompt_of({"general": ["hat"]}, "") == "hat"


def test_emoticons_keep_their_underscores() -> None:
    for face in EMOTICONS:
        assert replace_underscores(face) == face
        (segment,) = parse_prompt(escape_tag(face))
        assert segment.text == face


def test_a_tag_as_text() -> None:
    for tag, text in (
        ("long_hair", "long hair"),
        ("no_bra", "no bra"),
        ("on_bed", "on bed"),
        ("  red__hair ", "red hair"),
        ("red \t hair", "red hair"),
        ("watercolor_(medium)", r"watercolor \(medium\)"),
        (r"watercolor \(medium\)", r"watercolor \(medium\)"),
        (r"watercolor_\(medium\)", r"watercolor \(medium\)"),
        (":)", r":\)"),
        ("fate/stay_night", "fate/stay night"),
        ("a_b_c", "a b c"),
        ("夜_街", "夜_街"),
    ):
        assert escape_tag(tag) == text


@given(st.text(alphabet="ab_()\\:1. ^<é夜", min_size=1, max_size=30))
def test_a_tag_is_escaped_once_and_never_weighted(tag: str) -> None:
    text = escape_tag(tag)
    assert escape_tag(text) == text
    segments = parse_prompt(text)
    assert all(segment.weight == 1.0 for segment in segments)
    assert "".join(segment.text for segment in segments).count("(") == tag.count("(")


def wrong(**body: Any) -> dict[tuple[int | str, ...], Any]:
    """The location of every error in a request, with the limit."""
    with pytest.raises(ValidationError) as caught:
        request_type(CARD).model_validate(body)
    found = {}
    for error in caught.value.errors():
        context = error.get("ctx", {})
        limits = [context[name] for name in ("le", "max_length", "min_length") if name in context]
        found[error["loc"]] = limits[0] if limits else None
    return found


def test_invalid_tags_are_located_by_group_and_index() -> None:
    general = ["fine", "a,b", "a\nb", "", " _ ", "a" * (MAX_TAG_CHARS + 1), "(smile:1.2)", "\0"]
    assert wrong(tags={"general": general, "mood": ["sad"], "artist": "wlop"}) == {
        ("tags", "general", 1): None,
        ("tags", "general", 2): None,
        ("tags", "general", 3): 1,
        ("tags", "general", 4): None,
        ("tags", "general", 5): MAX_TAG_CHARS,
        ("tags", "general", 6): None,
        ("tags", "general", 7): None,
        ("tags", "mood"): None,
        ("tags", "artist"): None,
    }


def test_tags_have_limits_in_number_and_length() -> None:
    assert wrong(tags={"general": ["a"] * (MAX_TAGS + 1)}) == {("tags", "general"): MAX_TAGS}
    long = {"general": ["b" * 150] * MAX_TAGS}
    assert wrong(tags=long) == {("tags",): MAX_PROMPT_CHARS}
    rest = {"tags": {"general": ["b"]}, "prompt": "a" * (MAX_PROMPT_CHARS - 3)}
    assert wrong(**rest) == {("prompt",): MAX_PROMPT_CHARS}


def test_a_request_needs_a_prompt_or_tags() -> None:
    bodies: list[dict[str, Any]] = [{}, {"prompt": None}, {"tags": {}}, {"tags": {"meta": []}}]
    for body in bodies:
        assert wrong(**body) == {("prompt",): None}
        assert wrong(**{**body, "prompt": ""}) == {("prompt",): 1}


@given(
    st.lists(st.text(alphabet="ab_()\\@", min_size=1, max_size=9), max_size=9),
    st.text("a(", max_size=5),
)
def test_the_length_is_never_underestimated(tags: list[str], prose: str) -> None:
    given_tags = Tags.model_construct(artist=tags, general=tags)
    assert len(assemble_prompt(given_tags, CARD.prompting, prose)) <= max_prompt_length(
        given_tags
    ) + len(prose)
