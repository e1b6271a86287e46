"""Normalizes a folded text, so that a word is found regardless of its spelling.

Handles digits and signs in place of letters, and gaps between letters. Every step takes linear
time.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cached_property
from itertools import accumulate, compress, count, groupby
from operator import add
from typing import NamedTuple

from model.policy.ages.amounts import without_amounts
from model.policy.ages.restated import with_ages_said_again
from model.policy.folding import BARRIER, COMMA, fold, fold_prompt, looked_up

_SIGNS = "@$!|+*#?%&€£¢¥×"
"""Signs that replace a letter; `*`, `#`, `?`, `%`, `&` and `×` replace any letter."""

_SIGN_LETTERS = tuple(zip("0123456789l@$!|+#€£¢¥×?%&", "oizeasgtbgiasiit*eicy****", strict=True))
_AS_LETTERS = {ord(sign): letter for sign, letter in _SIGN_LETTERS}
_COVERS = frozenset("-_.'~`·=^:;/\"\\°@$!|+£€<>©®¢")
"""Signs that may cover one letter of a word, although they also separate words."""

_AS_DIGITS = str.maketrans("oil", "011")


def _ranges(pattern: str, end: int) -> str:
    """A class of the characters before `end` that match, written out: faster than categories."""
    found = re.finditer(pattern, "".join(map(chr, range(end))))
    runs = (list(run) for _, run in groupby(enumerate(found), lambda one: one[1].start() - one[0]))
    return f"[{''.join(f'{run[0][1][0]}-{run[-1][1][0]}' for run in runs)}]"


_SPACED = _ranges(r"[^\W\d_\u1100-\u11ff]", 0x3040)
_UNSPACED = r"[^\u0000-\u10ff\u1200-\u303f\W\d_]"
"""Letters of scripts with spaces between words, and those of scripts without."""

_OF_SIGNS = rf"[0-9{re.escape(_SIGNS)}]+"


class _Tokens:
    """A pattern of tokens, and a faster one for texts in ASCII letters only."""

    def __init__(self, spaced: str, unspaced: str) -> None:
        self._in_ascii = re.compile(f"({spaced.replace(_SPACED, '[a-z]')})")
        self._in_any = re.compile(f"({spaced}|{unspaced})")

    def split(self, text: str) -> list[str]:
        """The tokens of a text, and what is before, between and after them."""
        return (self._in_ascii if text.isascii() else self._in_any).split(text)


_WORDS = _Tokens(rf"[0-9]+|{_SPACED}+", rf"{_UNSPACED}+")
_MIXED = _Tokens(rf"[0-9]+|{_SPACED}+(?:[0-9]+{_SPACED}+)*", rf"{_UNSPACED}+")
_SIGNED = _Tokens(
    rf"{_OF_SIGNS}|{_SPACED}+(?:{_OF_SIGNS}{_SPACED}+)*",
    rf"{_UNSPACED}+(?:{_OF_SIGNS}{_UNSPACED}+)*",
)
# These begin with the characters to look for, not with what is before them: this is faster.
_HAS_SIGNS = re.compile(rf"[{re.escape(_SIGNS)}](?:(?<=\w.)|(?=\w))")
_MASKED = re.compile(
    r"[@$!](?:(?<=(?<![^\W_])[^\W\d_].)(?<!c(?=@t).)[^\W\d_]"
    r"|[@$!](?:(?<=(?<![^\W_])[^\W\d_]..)|(?<=(?<![^\W_])[^\W\d_]{2}..)())[^\W\d_]{1,2})(?![^\W_])"
)
_TO_MASKS = str.maketrans("@$!", "***")
"""A short word in which a sign may also cover another letter than it looks like: `s@x`."""

_NUMBER = re.compile(
    r"[0-9oil](?<![^\W_].)(?:(?<=[0-9])|(?=[oil]{0,2}[0-9]))[0-9oil]{0,5}(?![^\W_])"
)
_LEADING_ZEROS = re.compile(r"0(?<![^\W_].)(?<!\d[.,:/-].)0*(?=[1-9])")
"""Not those of 18.04 and 2026-01-05."""

_BARE_NUMBER = re.compile(r"[0-9](?<![^\W_].)[0-9]+(?![^\W_])")
_CJK_DIGITS = {
    "ー": 1, "一": 1, "ニ": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "ハ": 8,
    "八": 8, "九": 9, "十": 10, "廿": 20, "卅": 30, "百": 100, "千": 1000,
    "壹": 1, "贰": 2, "貳": 2, "叁": 3, "參": 3, "参": 3, "肆": 4, "伍": 5, "陆": 6,
    "陸": 6, "柒": 7, "捌": 8, "玖": 9, "拾": 10,
}  # fmt: skip
"""Numerals, also those of cheques, and as folding writes them: with the kana that look alike."""

_CJK_YEARS = re.compile(r"[歳才岁歲サ年级級ノ]")
_NUMERAL = f"[{''.join(_CJK_DIGITS)}]"
_GAP = r"[\W_]{0,3}"
_CJK_NUMBER = re.compile(
    rf"{_NUMERAL}(?:{_NUMERAL}{{0,5}}(?=[歳岁歲](?!月)|[才年级級]|周岁|サイ|ノ(?:娘|少|女ノ子))"
    rf"|(?<!第.)(?<![ァ-ヺー][ーニハ])(?:{_GAP}{_NUMERAL}){{0,5}}({_GAP})"
    rf"([歳岁歲](?![月末暮])|才(?![^\W\d_])|周{_GAP}岁|サ{_GAP}イ(?![スコトハ]))(?=(\w?)))"
)
_CJK_AGE = re.compile(rf"年{_GAP}([齢龄齡])((?:{_GAP}{_NUMERAL}){{1,3}})")
"""A number before a word for years, with gaps or without, and one behind "age"."""

_DIGIT = re.compile(r"[0-9]")

_RUN = re.compile(r"([^0-9*])\1+")
_UNSQUEEZED = "0123456789*"
_LETTER_BYTES = 3
"""Bytes of the number of a letter in Unicode that are not always zero."""


class Gap(IntEnum):
    """The gap between two tokens, smallest first.

    A `COVER` is one sign, which may cover a letter. A `LINE` is a space with a line end.
    """

    NONE = 0
    COVER = 1
    SIGN = 2
    SPACE = 3
    LINE = 4
    NUMBER = 5
    NUMBER_LINE = 6
    TAG = 7
    COVER_TAG = 8


TAG_ENDS = frozenset({Gap.LINE, Gap.NUMBER_LINE, Gap.TAG, Gap.COVER_TAG})
"""Gaps at which a tag ends."""

COVERS = frozenset({Gap.COVER, Gap.COVER_TAG})
"""Gaps that may cover a letter."""


_HOLE = re.compile(
    "(?<!{0})(?:{0})(?!{0})".format("|".join(map(re.escape, map(chr, COVERS)))).encode()
)

OUTER = [(gap in TAG_ENDS) * Gap.TAG + (gap in COVERS) for gap in Gap]
"""By gap, a number for all that are alike to a match that begins or ends there."""

_GAP_SIGNS = [f"{chr(OUTER[gap])}{chr(gap)}{chr(OUTER[gap])}" for gap in Gap]


def fold_tokens(text: str) -> list[str]:
    """The words and numbers of a folded text, with `i` for `l`, as in `NormalizedText`."""
    return [_one_i(token) for token in _WORDS.split(text)[1::2]]


def plain_words(text: str) -> list[str]:
    """The words and numbers of a text, folded."""
    plain = fold(text.lower())
    return _WORDS.split(plain)[1::2]


class Squeezed(NamedTuple):
    """Letters with every run of one letter reduced to one.

    `places` has where the run of each of them begins, and the end; `runs` which of them had longer
    runs.
    """

    letters: str
    places: Sequence[int]
    runs: list[int]


def squeeze(row: str) -> Squeezed:
    """Reduce every run of one letter. Runs of digits or stars stay: age 11 differs from age 1."""
    differences = _differences(row)
    if 0 not in differences:
        return Squeezed(row, range(len(row) + 1), [])
    places = [0, *compress(range(1, len(row) + 1), differences)]
    # The last letter of each run is kept; zero if the one before is the same.
    kept = bytes(compress(b"\1" + differences, differences))
    runs = map(add, accumulate(map(len, kept.split(b"\0")[:-1])), count())
    return Squeezed("".join(compress(row, differences)), places, list(runs))


def _differences(row: str) -> bytes:
    """By letter, zero if the next one is the same.

    All letters are compared at once, as long numbers: many times as fast as one by one.
    """
    following, differences = row, 0
    if not row.isalpha():
        for sign in _UNSQUEEZED:
            following = following.replace(sign, " ")
    codes, following_codes = row.encode("utf-32-le"), following.encode("utf-32-le")
    for byte in range(_LETTER_BYTES):
        letters = int.from_bytes(codes[byte::4], "little")
        differences |= letters ^ int.from_bytes(following_codes[byte + 4 :: 4], "little")
    return differences.to_bytes(len(row), "little")


def squeeze_runs(letters: str) -> tuple[str, tuple[int, ...]]:
    """Reduce every run of one letter; also return the lengths of the runs.

    As `squeeze`, faster for a word.
    """
    squeezed, runs, done = "", list[int](), 0
    for run in _RUN.finditer(letters):
        begin, end = run.span()
        squeezed += letters[done : begin + 1]
        runs += [*[1] * (begin - done), end - begin]
        done = end
    return squeezed + letters[done:], (*runs, *[1] * (len(letters) - done))


class NormalizedText:
    """A text as tokens.

    `raw` is the letters of all tokens without gaps, `row` what they are read as, and `squeezed`,
    `places` and `runs` the same as by `squeeze`. `reads_digits` is whether digits are read as
    numbers, not as letters.
    """

    def __init__(self, text: str, tokens: _Tokens, *, reads_digits: bool = False) -> None:
        self.reads_digits = reads_digits
        written = tokens.split(text)
        written[0] = written[-1] = ","  # a tag ends at both ends of the text
        self.tokens, self._betweens = written[1::2], written[::2]
        self.raw = "".join(self.tokens)
        self.row = self.read(self.raw)
        self.squeezed, self.places, self.runs = squeeze(self.row)

    def read(self, raw: str) -> str:
        """What letters, digits and signs are read as, one letter each."""
        return _one_i(raw) if self.reads_digits else _as_letters(raw)

    @cached_property
    def ends(self) -> list[int]:
        """The offset in `raw` after each token."""
        return list(accumulate([len(token) for token in self.tokens]))

    @cached_property
    def starts(self) -> list[int]:
        """The offset in `raw` of each token."""
        return [0, *self.ends[:-1]] if self.tokens else []

    @cached_property
    def is_start(self) -> list[bool]:
        """By letter of `raw`, and for its end, whether a token starts there."""
        is_start = [False] * (len(self.raw) + 1)
        for end in (0, *self.ends):
            is_start[end] = True
        return is_start

    @cached_property
    def touched(self) -> list[int]:
        """By offset in `raw`, the token of the letter before."""
        return list(accumulate(self.is_start, initial=-1))

    @cached_property
    def bounds(self) -> tuple[Sequence[bool], Sequence[bool]]:
        """By letter of `squeezed`, and behind the last, whether a match may begin or end before it.

        That is if a token starts within its run, or ends within the run before it.
        """
        is_start, places = self.is_start, self.places
        if not self.runs:
            return is_start, is_start
        begins = [*looked_up(places, is_start)]
        ends = begins[:]
        for run in self.runs:
            if True in is_start[places[run] + 1 : places[run + 1]]:
                begins[run] = ends[run + 1] = True
        return begins, ends

    @cached_property
    def gaps(self) -> Sequence[int]:
        """The gap before each token, and the one after the last."""
        kinds = {between: _gap(between).value for between in set(self._betweens)}
        return looked_up(self._betweens, kinds)

    @cached_property
    def holed(self) -> dict[tuple[str, str], list[int]]:
        """Pairs of tokens with a sign between that may cover a letter, and none beside them.

        By what they are, the numbers of the second ones.
        """
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        if not _COVERS.isdisjoint(self._betweens):
            for hole in _HOLE.finditer(bytes(self.gaps)):
                last = hole.start()
                found[self.tokens[last - 1], self.tokens[last]].append(last)
        return found

    @cached_property
    def written(self) -> str:
        """The tokens, and before, between and after them three signs for each gap.

        The outer ones are for the tokens beside it: gaps that are alike from there have one sign.
        """
        written = [""] * (2 * len(self.tokens) + 1)
        written[::2], written[1::2] = looked_up(self.gaps, _GAP_SIGNS), self.tokens
        return "".join(written)


def _gap(between: str) -> Gap:
    if not between:
        return Gap.NONE
    if COMMA.search(between):
        return Gap.COVER_TAG if between in _COVERS else Gap.TAG
    has_line = "\n" in between
    if BARRIER in between:
        return Gap.NUMBER_LINE if has_line else Gap.NUMBER
    if any(map(str.isspace, between)):
        return Gap.LINE if has_line else Gap.SPACE
    return Gap.COVER if between in _COVERS else Gap.SIGN


def readings(prompt: str) -> Iterator[NormalizedText]:
    """Every way to read a prompt."""
    return normalize(with_ages_said_again(without_amounts(fold_prompt(prompt))))


def normalize(text: str) -> Iterator[NormalizedText]:
    """The ways to read a folded text: with digits as letters, as numbers, with signs as letters.

    The second and third contain only the parts of the text that have digits or signs.
    """
    lettered = _BARE_NUMBER.sub(BARRIER, text)
    yield NormalizedText(lettered, _MIXED)
    has_years = not text.isascii() and _CJK_YEARS.search(text)
    numbered = _in_digits(text) if has_years else text
    numbered = _matching_parts(numbered, _DIGIT)
    if numbered:
        numbers = _NUMBER.sub(lambda match: match[0].translate(_AS_DIGITS), numbered)
        numbers = _LEADING_ZEROS.sub("", numbers)
        yield NormalizedText(numbers, _WORDS, reads_digits=True)
    signed = _matching_parts(lettered, _HAS_SIGNS)
    if signed:
        short = dict.fromkeys(map(_whole_word, _MASKED.finditer(signed)))
        masked = [word.translate(_TO_MASKS) for word in short]
        yield NormalizedText(",".join([signed, *masked]), _SIGNED)


def _whole_word(masked: re.Match[str]) -> str:
    """A masked word, with the letter or the two letters before its sign."""
    return masked.string[masked.start() - 1 - (masked.lastindex or 0) : masked.end()]


def _as_letters(raw: str) -> str:
    """Digits and signs in letters, and `i` for `l`."""
    if raw.isascii():
        return raw.translate(_AS_LETTERS)
    for sign, letter in _SIGN_LETTERS:  # several times as fast as a table for such a text
        raw = raw.replace(sign, letter)
    return raw


def _one_i(raw: str) -> str:
    return raw.replace("l", "i")


def _in_digits(text: str) -> str:
    """A text with numbers of years in CJK numerals, such as 十七, in digits."""
    text = _CJK_NUMBER.sub(_years_in_digits, text)
    return _CJK_AGE.sub(lambda age: f"年{age[1]}{_value(age[2])}", text)


def _years_in_digits(numeral: re.Match[str]) -> str:
    """A number in digits, and the word for years that was found behind a gap."""
    gap, years, behind = numeral.groups("")
    if behind and COMMA.search(gap):
        return numeral[0]  # 三、才女 is a list
    return f"{_value(numeral[0])}{years}"


def _value(written: str) -> int:
    """The value of CJK numerals; other characters do not count."""
    value, ones = 0, 0
    for sign in written:
        digit = _CJK_DIGITS.get(sign, 0)
        if digit >= 10:
            value, ones = value + digit * max(1, ones), 0
        elif digit:
            ones = ones * 10 + digit
    return value + ones


def _matching_parts(text: str, pattern: re.Pattern[str]) -> str:
    """The parts between commas that match a pattern."""
    if not pattern.search(text):
        return ""
    return ",".join(part for part in COMMA.split(text) if pattern.search(part))
