"""Texts in one spelling, and their letters with stretched ones squeezed."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.policy.normalize import (
    Gap,
    NormalizedText,
    fold,
    fold_tokens,
    fold_variants,
    normalize,
    squeeze_runs,
)
from tests.support.evasions import EVASIONS

PLAIN = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "way",
    [
        "capitals", "full width", "bold", "script", "fraktur", "monospace", "circled",
        "negative circled", "negative squared", "regional indicators", "small capitals",
        "accents", "heaps of marks", "variation selectors", "zero-width spaces", "direction marks",
        "invisible letters", "cyrillic", "greek", "armenian", "cherokee", "strokes",
    ],
)  # fmt: skip
def test_the_whole_alphabet_comes_out_plain(way: str) -> None:
    assert fold(EVASIONS[way](PLAIN)) == PLAIN


@pytest.mark.parametrize("case", [str.upper, str.title, str.lower])
@pytest.mark.parametrize("way", ["full width", "bold", "circled", "cyrillic", "greek", "armenian"])
def test_capitals_are_read_as_what_their_small_letters_look_like_too(
    way: str, case: Callable[[str], str]
) -> None:
    assert PLAIN in fold_variants(case(EVASIONS[way](PLAIN)))


def test_a_text_is_folded_once_where_case_makes_no_difference() -> None:
    assert list(fold_variants("Plain ＷＩＤＥ 𝗕𝗼𝗹𝗱 ロリ")) == ["plain wide bold ロリ"]
    assert list(fold_variants("ΗI")) == ["hi", "ni"]


def test_other_scripts_stay_apart() -> None:
    assert fold("ろり") == fold("ロリ") == fold("ﾛﾘ") == "ロリ"
    assert fold("口リ") == "ロリ"
    assert fold("Հհ") == "hh"
    assert fold("１２ ٣") == "12 3"
    assert fold("don't, don’t") == "dont, dont"
    assert fold("a 👶 b").split() == ["a", "baby", "b"]


@pytest.mark.parametrize(
    ("letters", "squeezed"),
    [
        ("plum", ("plum", (1, 1, 1, 1))),
        ("apple", ("aple", (1, 2, 1, 1))),
        ("11", ("11", (1, 1))),
        ("", ("", ())),
    ],
)
def test_squeezing(letters: str, squeezed: tuple[str, tuple[int, ...]]) -> None:
    assert squeeze_runs(letters) == squeezed


def test_a_text_is_read_in_as_many_ways_as_it_needs() -> None:
    assert [reading.squeezed for reading in normalize("one word")] == ["oneword"]
    assert [reading.squeezed for reading in normalize("n0t, any")] == ["notany", "n0t"]
    assert [reading.squeezed for reading in normalize("as$, b")] == ["asb", "as"]
    assert [reading.raw for reading in normalize("as$, b")] == ["asb", "as$"]


def test_gaps() -> None:
    (reading,) = normalize("a-b c, d\ne")
    assert [reading.gap(token) for token in range(6)] == [
        Gap.TAG, Gap.SIGN, Gap.SPACE, Gap.TAG, Gap.SPACE, Gap.TAG,
    ]  # fmt: skip
    assert [reading.ends_tag(token) for token in range(6)] == [True, False, False, True, True, True]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab1 ,-'$é", max_size=30))
def test_places_lead_back_to_the_row(text: str) -> None:
    for reading in normalize(fold(text)):
        assert len(reading.places) == len(reading.squeezed) + 1
        assert reading.places[-1] == len(reading.raw)
        assert reading.places == sorted(set(reading.places)) or reading.raw == ""
        tokens = [reading.raw[a:b] for a, b in zip(reading.starts, reading.ends, strict=False)]
        assert "".join(tokens) == reading.raw


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    once = fold(text)
    assert fold_tokens(fold(once)) == fold_tokens(once)
    assert isinstance(once, str)


def test_a_reading_without_tokens() -> None:
    (reading,) = normalize(", - ,")
    assert isinstance(reading, NormalizedText)
    assert (reading.squeezed, reading.ends) == ("", [])
