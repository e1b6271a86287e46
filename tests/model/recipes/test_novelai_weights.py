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
        ("year 2024::x", "year (x:10)"),
        ("-.5::hat::", "(hat:-0.5)"),
        ("2.::hat::", "(hat:2)"),
        ("v2::hat, 1.2.3::cap", "v2::hat, 1.2.3::cap"),
        ("a\\{b}", "(a\\:1)(b:1.05)"),
    ],
)
def test_weights_are_converted(text: str, expected: str) -> None:
    assert convert_weights(text).text == expected


def test_weights_that_are_not_allowed_here_are_named() -> None:
    converted = convert_weights("20::smile::, {{{hat}}}, -11::[cap]::, 10::a::")
    assert converted.text == "(smile:10), (hat:1.158), (cap:-10), (a:10)"
    assert converted.too_strong == ("20", "-10.4762")


@given(st.text("ab1.:-{}[]()\\ ,", max_size=30).filter(lambda text: "::" not in text))
def test_only_the_marks_are_removed_from_a_text(text: str) -> None:
    converted, is_weighted, too_strong = convert_weights(text)
    assert plain_text(converted) == "".join(char for char in text if char not in "{}[]")
    assert too_strong == ()
    assert is_weighted == bool(set(text) & set("{}[]"))
    assert all(0.1 < segment.weight <= 10 for segment in parse_prompt(converted))
