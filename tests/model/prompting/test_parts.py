"""Parts of prompts: tags, and sentences with commas."""

import pytest

from model.prompting.parts import split_tags, tags_outside_prose

KNOWN = ("the legend of zelda", "love live! school idol project", "dr. stone")


def test_tags_are_split_trimmed_and_without_brackets() -> None:
    assert split_tags(" 1Girl ,, (red hair:1.2),\n((a \\(b\\), c))") == [
        "1girl",
        "red hair",
        "a (b)",
        "c",
    ]


@pytest.mark.parametrize(
    ("prompt", "tags"),
    [
        ("1girl, (Smile:1.2), smile, hat", ["1girl", "smile", "hat"]),
        ("A girl on a roof, arms spread, sofa", []),
        ("1girl, The girl stands on a rooftop in the rain, arms spread, sofa", ["1girl"]),
        ("1girl, she waves, sofa.\nhat, scarf", ["1girl", "hat", "scarf"]),
        ("1girl. She is in the rain, sofa, smiling softly. hat, scarf", ["scarf"]),
        ("She walks on a bridge in the rain, sofa near her. Hat, scarf", ["scarf"]),
        ("She walks on a bridge in the rain. Her hat is blue, sofa", []),
        ("the legend of zelda, link", ["the legend of zelda", "link"]),
        ("love live! school idol project, dr. stone, hat", [*KNOWN[1:], "hat"]),
        ("", []),
    ],
)  # fmt: skip
def test_tags_in_sentences_are_left_out(prompt: str, tags: list[str]) -> None:
    assert tags_outside_prose(prompt, KNOWN.__contains__) == tags
