"""NovelAI's weights become weights of this service, with the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.prompt_grammar import parse_prompt, plain_text
from model.recipes.novelai_weights import convert_weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1girl, red hair", "1girl, red hair"),
        ("{cute}, [dark]", "(cute:1.05), (dark:0.9524)"),
        ("{{a, b}} c", "(a, b:1.103) c"),
        ("{a {b}}", "(a :1.05)(b:1.103)"),
        ("1.5::rain, snow::, sun", "(rain, snow:1.5), sun"),
        ("-1::hat:: a", "(hat:-1) a"),
        ("2::{a}::", "(a:2.1)"),
        ("1.0::rain:: sun", "rain sun"),
        ("{open", "(open:1.05)"),
        ("miku (vocaloid)", "miku \\(vocaloid\\)"),
        ("a::b, 12:30", "a::b, 12:30"),
        ("100::a", "(a:10)"),
        ("a\\{b}", "(a\\:1)(b:1.05)"),
    ],
)
def test_weights_are_converted(text: str, expected: str) -> None:
    assert convert_weights(text)[0] == expected


@given(st.text("ab1.:-{}[]()\\ ,", max_size=30).filter(lambda text: "::" not in text))
def test_only_the_marks_are_removed_from_a_text(text: str) -> None:
    converted, is_weighted = convert_weights(text)
    assert plain_text(converted) == "".join(char for char in text if char not in "{}[]")
    assert is_weighted == bool(set(text) & set("{}[]"))
    assert all(0.1 < segment.weight <= 10 for segment in parse_prompt(converted))
