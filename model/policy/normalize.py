"""Normalizes a text, so that a word is found regardless of its spelling.

Handles case, width, accents, invisible characters, look-alikes (UTS 39), digits and signs in
place of letters, and gaps between letters. Every step takes linear time.
"""

import re
import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from itertools import accumulate, compress, count
from operator import ne

from anyascii import anyascii
from confusable_homoglyphs.confusables import (  # type: ignore[import-untyped]
    confusables_data,
)

_DRAWN_LETTERS = re.compile(
    r"(?:COMBINING )?LATIN |GREEK |CYRILLIC |REGIONAL |.*(?:SQUARED|CIRCLED) LATIN "
)
_HIRAGANA = range(0x3041, 0x3097)
_TO_KATAKANA = 0x60
_FROM_KANA_ON = 0x3040
_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
"""Unicode letters and a sign that are blank."""

_APOSTROPHES = "\u2018\u2019\u02bc\u2032"
_CONTRACTED = re.compile(r"(?<=\w)['`](?=\w)")

_ALSO_ALIKE = {
    "χ": "x", "ω": "w", "η": "n", "μ": "u", "п": "n", "П": "n", "и": "u", "н": "h", "в": "b",
    "т": "t", "м": "m", "я": "r",
}  # fmt: skip
"""Substitutes for Latin letters that are missing in UTS 39 because they look different."""

_NAMED_EMOJI = frozenset({"BABY", "CHILD", "BOY", "GIRL"})
"""Emoji that count as their names."""

_SIGNS = "@$!|+*#€£¢¥×"
"""Signs that replace a letter; `*`, `#` and `×` replace any letter."""

_AS_LETTERS = str.maketrans("0123456789l@$!|+#€£¢¥×", "oizeasgtbgiasiit*eicy*")
_ONE_I = str.maketrans("l", "i")
_AS_DIGITS = str.maketrans("oil", "011")

_WORDS = re.compile(r"\d+|[^\W\d_]+")
_MIXED = re.compile(r"\d+|[^\W\d_]+(?:\d+[^\W\d_]+)*")
_SIGNED = re.compile(rf"[\d{re.escape(_SIGNS)}]+|[^\W\d_]+(?:[\d{re.escape(_SIGNS)}]+[^\W\d_]+)*")
_HAS_SIGNS = re.compile(rf"\w[{re.escape(_SIGNS)}]|[{re.escape(_SIGNS)}]\w")
_NUMBER = re.compile(r"(?<![^\W_])(?=[oil]{0,3}\d)[\doil]{1,6}(?![^\W_])")
_COMMA = re.compile(r"[,;、]")
_DIGIT = re.compile(r"\d")


class Gap(IntEnum):
    """The gap between two tokens, smallest first."""

    NONE = 0
    SIGN = 1
    SPACE = 2
    TAG = 3


class _Characters(dict[int, str]):
    """A translation table for `str.translate`, filled on first use of each character."""

    def __missing__(self, code: int) -> str:
        self[code] = read = _read(chr(code))
        return read


def _read(char: str) -> str:
    if char.isascii():
        return char.lower()
    if char in _APOSTROPHES:
        return "'"
    category = unicodedata.category(char)
    name = unicodedata.name(char, "")
    if category in ("Mn", "Me") and not name.startswith("COMBINING LATIN SMALL LETTER"):
        return ""
    if category in ("Cf", "Sk", "Cc", "Co", "Cn") or char in _BLANK:
        return ""
    if category == "Nd":
        return str(unicodedata.digit(char))
    return _look_alike(char, name, category)


def _look_alike(char: str, name: str, category: str) -> str:
    """The letters that a character looks like; the character itself if there are none."""
    alike = [str(found["c"]) for found in confusables_data.get(char, ())]
    for one in alike:
        if len(one) == 1 and one.isascii() and one.isalnum():
            return one.lower()
    if char in _ALSO_ALIKE:
        return _ALSO_ALIKE[char]
    if _DRAWN_LETTERS.match(name):
        letters = anyascii(char).lower()
        if letters.isalpha():
            return letters
    if name in _NAMED_EMOJI:
        return f" {name.lower()} "
    code = ord(char)
    if code in _HIRAGANA:
        return chr(code + _TO_KATAKANA)
    if category[0] == "Z":
        return " "
    if code >= _FROM_KANA_ON:
        return min(one for one in (char, *alike) if len(one) == 1 and ord(one) >= _FROM_KANA_ON)
    small = char.lower()
    return small if small == char else "".join(map(_read, small))


_CHARACTERS = _Characters()


def fold(text: str) -> str:
    """The text in plain lower-case letters, as far as possible."""
    if text.isascii():
        plain = text.lower()
    else:
        plain = unicodedata.normalize("NFKD", text).translate(_CHARACTERS)
    return _CONTRACTED.sub("", plain)  # the t in "isn't" is not a word


def fold_variants(text: str) -> Iterator[str]:
    """The folded text, and the folded lower-case text if that differs.

    A capital eta looks like an H, a small eta like an n.
    """
    plain = fold(text)
    yield plain
    if not text.isascii():
        small = fold(text.lower())
        if small != plain:
            yield small


def fold_tokens(text: str) -> list[str]:
    """The words and numbers of a folded text, with `i` for `l`, as in `NormalizedText`."""
    return [token.translate(_ONE_I) for token in _WORDS.findall(text)]


def squeeze_runs(letters: str) -> tuple[str, tuple[int, ...]]:
    """Reduce every run of one letter to a single letter; also return the lengths of the runs."""
    parts = [match[0] for match in re.finditer(r"([^\W\d_])\1*|.", letters)]
    return "".join(part[0] for part in parts), tuple(map(len, parts))


class NormalizedText:
    """A text as tokens.

    `raw` is the letters of all tokens without gaps, `squeezed` the same with every run of one
    letter reduced to one. `starts` and `ends` are the tokens' bounds in `raw`. `places` has, for
    every letter of `squeezed` and for its end, the offset in `raw` where its run begins.
    """

    __slots__ = ("_spans", "_text", "_tokens", "ends", "places", "raw", "squeezed", "starts")

    def __init__(self, text: str, tokens: re.Pattern[str], letters: dict[int, int]) -> None:
        self._text, self._tokens = text, tokens
        self._spans: list[tuple[int, int]] | None = None
        found = tokens.findall(text)
        self.raw = "".join(found)
        self.ends = list(accumulate(map(len, found)))
        self.starts = [0, *self.ends[:-1]]
        row = self.raw.translate(letters)
        is_kept = list(map(ne, row, f" {row}"))
        if not row.isalpha():  # digits are not squeezed: age 11 differs from age 1
            is_kept = [
                kept or not letter.isalpha() for kept, letter in zip(is_kept, row, strict=True)
            ]
        self.squeezed = "".join(compress(row, is_kept))
        self.places = [*compress(count(), is_kept), len(row)]

    def gap(self, token: int) -> Gap:
        """The gap before a token; the start and the end of the text count as the end of a tag."""
        between = self._between(token)
        if between is None or _COMMA.search(between):
            return Gap.TAG
        if not between:
            return Gap.NONE
        return Gap.SPACE if any(map(str.isspace, between)) else Gap.SIGN

    def ends_tag(self, token: int) -> bool:
        """Whether a tag ends before a token, at a comma or a line end."""
        return self.gap(token) is Gap.TAG or "\n" in (self._between(token) or "")

    def _between(self, token: int) -> str | None:
        if token in (0, len(self.ends)):
            return None
        if self._spans is None:  # computed on demand: few texts need it
            self._spans = [match.span() for match in self._tokens.finditer(self._text)]
        return self._text[self._spans[token - 1][1] : self._spans[token][0]]


def normalize(text: str) -> Iterator[NormalizedText]:
    """The ways to read a folded text: with digits as letters, as numbers, with signs as letters.

    The second and third contain only the parts of the text that have digits or signs.
    """
    yield NormalizedText(text, _MIXED, _AS_LETTERS)
    numbered = _matching_parts(text, _DIGIT)
    if numbered:
        numbers = _NUMBER.sub(lambda match: match[0].translate(_AS_DIGITS), numbered)
        yield NormalizedText(numbers, _WORDS, _ONE_I)
    signed = _matching_parts(text, _HAS_SIGNS)
    if signed:
        yield NormalizedText(signed, _SIGNED, _AS_LETTERS)


def _matching_parts(text: str, pattern: re.Pattern[str]) -> str:
    """The parts between commas that match a pattern."""
    if not pattern.search(text):
        return ""
    return ",".join(part for part in _COMMA.split(text) if pattern.search(part))
