"""Exceptions are found letter for letter, and only as whole words."""

import pytest

from model.errors import PolicyError
from model.policy.normalize import readings
from model.policy.phrases import PhraseMatcher


def test_phrases_are_found_letter_for_letter_only() -> None:
    matcher = PhraseMatcher(["pen is", "pin", "小さい林檎"])

    def phrases(text: str) -> list[tuple[int, list[int]]]:
        return [match for reading in readings(text) for match in matcher.find(reading).items()]

    assert phrases("the pen is red") == [(0, [1])]
    assert phrases("Pen Is, pin, pen is") == [(0, [0, 3]), (1, [2])]
    assert matcher.lengths == [2, 1, 1]
    for text in ("pe nis", "penis", "p e n i s", "pen, is", "pen 1s", "pens is", "open is", "piin"):
        assert phrases(text) == [], text
    assert PhraseMatcher([]).find(next(readings("pen is"))) == {}
    with pytest.raises(PolicyError, match="no letters"):
        PhraseMatcher(["!"])
