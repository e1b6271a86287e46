"""Texts of which another one may be a slip of the keyboard.

Words that differ by a letter are often different words: `brass` is no slip for `grass`. So most
changes count in long words only, or in a word that no tag has.
"""

from collections.abc import Callable, Iterator
from typing import Final

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_BLANKS: Final = " -"
_MIN_LETTERS: Final = 6
_MIN_LETTERS_OF_TAG: Final = 8
_MIN_LETTERS_OF_WORD: Final = 11
_MAX_CHARS: Final = 40


def likely_meant(
    text: str, is_word: Callable[[str], bool], is_start: Callable[[str], bool]
) -> Iterator[str]:
    """Texts that differ from this one by a letter, but not the first, and may have been meant.

    `is_word` tells whether a word is part of some tag, `is_start` whether tags start with a text.
    """
    letters = sum(map(str.isalpha, text))
    if letters < _MIN_LETTERS or len(text) > _MAX_CHARS or not text.isascii():
        return
    yield from _likely_edits(text)
    words = text.split()
    if letters >= (_MIN_LETTERS_OF_TAG if len(words) > 1 else _MIN_LETTERS_OF_WORD):
        end = 0
        for word in words:
            start = text.index(word, end)
            end = start + len(word)
            if not is_word(word):
                yield from _edits(text, start, end, is_start)


def _likely_edits(text: str) -> Iterator[str]:
    """Swapped letters, doubled ones or one of two, plurals, and blanks or hyphens."""
    for at in range(1, len(text) + 1):
        before, after = text[:at], text[at:]
        is_end = not after or after[0] == " "
        for added in {before[-1], after[:1], *_BLANKS, "s" * is_end} - {""}:
            yield before + added + after
        if not after:
            continue
        ends_word = len(after) == 1 or after[1] == " "
        if after[0] in {before[-1], *_BLANKS} or (after[0] == "s" and ends_word):
            yield before + after[1:]
        if after[0] in _BLANKS:
            yield from (before + blank + after[1:] for blank in _BLANKS)
        elif len(after) > 1 and after[1] not in _BLANKS:
            yield before + after[1] + after[0] + after[2:]


def _edits(text: str, start: int, end: int, is_start: Callable[[str], bool]) -> Iterator[str]:
    """The text with a letter of one of its words left out, replaced or added."""
    for at in range(start + 1, end + 1):
        before, after = text[:at], text[at:]
        if not is_start(before):
            return
        if at < end:
            yield before + after[1:]
            yield from (before + letter + after[1:] for letter in _LETTERS)
        yield from (before + letter + after for letter in _LETTERS)
