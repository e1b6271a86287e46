"""Weights, brackets and escapes of prompts are parsed as in ComfyUI."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import PromptError
from model.prompt_grammar import Segment, check_characters, parse_prompt
from tests.support.growth import grows_linearly
from tests.support.paths import DATA

CASES: list[dict[str, Any]] = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))[
    "cases"
]


def parsed(prompt: str) -> tuple[list[str], list[float]]:
    """The texts and the weights of the segments."""
    segments = parse_prompt(prompt)
    return [segment.text for segment in segments], [segment.weight for segment in segments]


def test_segments_are_those_of_the_reference() -> None:
    for case in CASES:
        if case["segments"] is not None:
            texts, weights = parsed(case["prompt"])
            assert texts == [
                text.replace("\0\1", ")").replace("\0\2", "(") for text, _ in case["segments"]
            ]
            assert weights == pytest.approx([weight for _, weight in case["segments"]])


def test_control_codes_and_halves_of_surrogate_pairs_are_refused() -> None:
    def is_refused(char: str) -> bool:
        try:
            return check_characters(f"a{char}b") != f"a{char}b"
        except ValueError as exc:
            return str(exc).startswith(f"character U+{ord(char):04X} at position 1 ")

    def is_unfit(char: str) -> bool:
        return unicodedata.category(char) in ("Cs", "Cc") and char not in "\n\r\t"

    codes = map(chr, range(0x20000))
    assert [char for char in codes if is_refused(char) != is_unfit(char)] == []


def test_unusual_brackets() -> None:
    for prompt, expected in (
        (r"\\(a\\)", [("\\(a\\)", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("b (a", [("b ", 1.0), ("(a", 1.0)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(a\\:1.2)", [("a\\", 1.2)]),
        ("(a:1_0)", [("a:1_0", 1.1)]),
        ("(smile:)", [("smile:", 1.1)]),
        ("[a]{b}", [("[a]{b}", 1.0)]),
    ):
        texts, weights = parsed(prompt)
        assert texts == [text for text, _ in expected]
        assert weights == pytest.approx([weight for _, weight in expected])


def test_weights_and_nesting_out_of_bounds_are_refused_with_their_position() -> None:
    for prompt, position in (
        ("a, (cat:nan)", 3),
        ("(cat:inf)", 0),
        ("(cat:-inf)", 0),
        ("(cat:1e9)", 0),
        ("(cat:-11)", 0),
        ("(a (b (cat:10.5)))", 6),
        (r"\(x\) ((y:9.9))" + ", ((((z)):9.5))", 19),
        ("(" * 10_000, 20),
        ("a(" + "(" * 10_000 + "b" + ")" * 10_000, 21),
    ):
        with pytest.raises(PromptError, match=rf"position {position}\b"):
            parse_prompt(prompt)


def test_the_bounds_themselves_are_allowed() -> None:
    assert parse_prompt("(a:-10)") == (Segment("a", -10.0),)
    assert parse_prompt("(" * 20 + "a" + ")" * 20)[0].weight == pytest.approx(1.1**20)


def test_hostile_brackets_take_linear_time() -> None:
    frames = {
        "open": ("", "(", ""),
        "pairs": ("", "()", ""),
        "nested": ("", "(" * 20 + "a" + ")" * 20, ""),
        "wide": ("(" * 19, "()", ")" * 19),
        "colons": ("(", ":", ")"),
        "digits": ("(a:", "1", ")"),
        "backslashes": ("", "\\", ""),
    }
    for name, (before, piece, after) in frames.items():

        def parse(text: str, before: str = before, after: str = after) -> None:
            parse_prompt.cache_clear()
            try:
                parse_prompt(before + text + after)
            except PromptError as exc:
                assert exc.limit in (10, 20)  # noqa: PT017 - a refusal is optional

        assert grows_linearly(parse, piece), name


@settings(deadline=None)
@given(st.text(alphabet="()\\:1.a ,é夜", max_size=60))
def test_any_text_is_refused_or_parsed_without_losing_a_letter(text: str) -> None:
    try:
        segments = parse_prompt(text)
    except PromptError:
        return
    letters = "".join(char for segment in segments for char in segment.text if char in "aé夜")
    assert letters == "".join(char for char in text if char in "aé夜")
