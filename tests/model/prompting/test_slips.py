"""Slips of the keyboard: what may have been meant, and what is another word."""

import pytest

from model.prompting.slips import likely_meant

WORDS = {"long", "hair", "black", "plaid", "skirt", "cat", "gojou"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("long hiar", "long hair"), ("longg hair", "long hair"), ("blue eye", "blue eyes"),
        ("pine trees", "pine tree"), ("powerlines", "power lines"), ("race car", "racecar"),
        ("close up", "close-up"), ("twintials", "twintails"), ("wooden tables", "wooden table"),
        ("gojo satoru", "gojou satoru"), ("long haie", "long hair"), ("brwn hair", "brown hair"),
        ("photorealistc", "photorealistic"), ("skirts lift", "skirt lift"),
    ],
)  # fmt: skip
def test_slips_are_found(written: str, meant: str) -> None:
    assert meant in likely_meant(written, WORDS.__contains__, meant.startswith)


@pytest.mark.parametrize(
    ("written", "other"),
    [
        ("brass", "grass"), ("lights", "nights"), ("election", "erection"), ("luffy", "fluffy"),
        ("tracer", "bracer"), ("bedhead", "redhead"), ("moana", "moan"), ("steaming", "streaming"),
        ("plaid skirt", "plaid shirt"), ("black cat", "black coat"), ("tired", "tied"),
        ("lillie", "lily"), ("shiny", "shinx"), ("ab" * 30, "ab" * 29 + "a"),
    ],
)  # fmt: skip
def test_other_words_are_no_slips(written: str, other: str) -> None:
    assert other not in likely_meant(written, WORDS.__contains__, other.startswith)
