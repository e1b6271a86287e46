"""Normalizes a folded text, so that a word is found regardless of its spelling.

Handles digits and signs in place of letters, and gaps between letters. Every step takes linear
time.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property, partial
from itertools import accumulate, compress, count, groupby
from operator import le, ne

from model.policy.ages.amounts import without_amounts
from model.policy.ages.restated import with_ages_said_again
from model.policy.folding import BARRIER, COMMA, fold, fold_prompt

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
    r"(?<![^\W_])(?!c@t)[^\W\d_](?:[@$!][^\W\d_]|[^\W\d_]?[@$!]{2}[^\W\d_]{1,2})(?![^\W_])"
)
_TO_MASKS = str.maketrans("@$!", "***")
"""A short word in which a sign may also cover another letter than it looks like: `s@x`."""

_NUMBER = re.compile(
    r"[0-9oil](?<![^\W_].)(?:(?<=[0-9])|(?=[oil]{0,2}[0-9]))[0-9oil]{0,5}(?![^\W_])"
)
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
    rf"{_NUMERAL}{{1,6}}(?=[歳岁歲](?!月)|[才年级級]|周岁|サイ|ノ(?:娘|少|女ノ子))"
    rf"|(?<!第){_NUMERAL}(?<![ァ-ヺー][ーニハ])(?:{_GAP}{_NUMERAL}){{0,5}}({_GAP})"
    rf"([歳岁歲](?![月末暮])|才(?![^\W\d_])|周{_GAP}岁|サ{_GAP}イ(?![スコトハ]))(?=(\w?))"
    rf"|(年){_GAP}([齢龄齡])(?:{_GAP}{_NUMERAL}){{1,3}}"
)
"""A number before a word for years, with gaps or without, or behind "age"."""

_DIGIT = re.compile(r"[0-9]")

_RUN = re.compile(r"([^\W\d_])\1+")


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


def squeeze_runs(letters: str) -> tuple[str, tuple[int, ...]]:
    """Reduce every run of one letter to a single letter; also return the lengths of the runs.

    Runs of digits or stars stay.
    """
    squeezed, runs, done = "", [], 0
    for run in _RUN.finditer(letters):
        begin, end = run.span()
        squeezed += letters[done : begin + 1]
        runs += [*[1] * (begin - done), end - begin]
        done = end
    return squeezed + letters[done:], (*runs, *[1] * (len(letters) - done))


def squeeze(row: str) -> tuple[str, list[int]]:
    """Reduce every run of one letter; also return where the run of each letter begins, and the end.

    As `squeeze_runs`, faster for long texts.
    """
    is_kept = _kept(row)
    return "".join(compress(row, is_kept)), [*compress(count(), is_kept), len(row)]


class NormalizedText:
    """A text as tokens.

    `raw` is the letters of all tokens without gaps, `row`
    what they are read as, `squeezed` the same with every run of one letter reduced to one.
    `reads_digits` is whether digits are read as numbers, not as letters.
    """

    def __init__(self, text: str, tokens: _Tokens, *, reads_digits: bool = False) -> None:
        self.reads_digits = reads_digits
        written = tokens.split(text)
        written[0] = written[-1] = ","  # a tag ends at both ends of the text
        self.tokens, self._betweens = written[1::2], written[::2]
        self.raw = "".join(self.tokens)
        self.row = self.read(self.raw)
        self._is_kept = _kept(self.row)
        self._has_runs = not all(self._is_kept)
        self.squeezed = "".join(compress(self.row, self._is_kept)) if self._has_runs else self.row

    def read(self, raw: str) -> str:
        """What letters, digits and signs are read as, one letter each."""
        return _one_i(raw) if self.reads_digits else _as_letters(raw)

    @cached_property
    def ends(self) -> list[int]:
        """The offset in `raw` after each token."""
        return list(accumulate(map(len, self.tokens)))

    @cached_property
    def starts(self) -> list[int]:
        """The offset in `raw` of each token."""
        return [0, *self.ends[:-1]] if self.tokens else []

    @cached_property
    def places(self) -> list[int]:
        """The offset in `raw` where the run of each letter of `squeezed` begins, and the end."""
        if not self._has_runs:
            return list(range(len(self.row) + 1))
        return [*compress(count(), self._is_kept), len(self.row)]

    @cached_property
    def run_tokens(self) -> tuple[list[int], list[int]]:
        """By place in `squeezed`, the tokens of the first and of the last letter of its run.

        -1 is behind them, so the token before differs at the start and at the end of the text, too.
        """
        starts = b"".join(map(_STARTS.__getitem__, map(len, self.tokens)))
        tokens = list(accumulate(starts, initial=-1))[1:]
        if not self._has_runs:
            tokens.append(-1)
            return tokens, tokens
        is_last = [*self._is_kept[1:], True]
        return [*compress(tokens, self._is_kept), -1], [*compress(tokens, is_last), -1]

    @cached_property
    def gaps(self) -> list[int]:
        """The gap before each token, and the one after the last."""
        kinds = {between: _gap(between).value for between in set(self._betweens)}
        return list(map(kinds.__getitem__, self._betweens))

    @cached_property
    def written(self) -> str:
        """The tokens, and before, between and after them three signs for each gap.

        The outer ones are for the tokens beside it: gaps that are alike from there have one sign.
        """
        written = [""] * (2 * len(self.tokens) + 1)
        written[::2], written[1::2] = map(_GAP_SIGNS.__getitem__, self.gaps), self.tokens
        return "".join(written)

    @cached_property
    def breaks(self) -> list[int]:
        """How many numbers and ends of tags are before each token: equal if none is between two."""
        return list(accumulate(map(partial(le, Gap.NUMBER.value), self.gaps)))

    def words(self) -> str:
        """All tokens, with a space before and after each."""
        return f" {' '.join(self.tokens)} "


class _Starts(dict[int, bytes]):
    """By the length of a token, 1 for its first letter and 0 for the others."""

    def __missing__(self, length: int) -> bytes:
        starts = b"\1" + bytes(length - 1)
        if length <= _MAX_KEPT_LENGTH:
            self[length] = starts
        return starts


_MAX_KEPT_LENGTH = 64
_STARTS = _Starts()


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


def _kept(row: str) -> list[bool]:
    """Which letters remain if every run of one letter is reduced to one."""
    before = row
    if not row.isalpha():  # age 11 differs from age 1
        for sign in "0123456789*":
            before = before.replace(sign, " ")
    return list(map(ne, row, f" {before}"))


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
    numbered = _CJK_NUMBER.sub(_in_digits, text) if has_years else text
    numbered = _matching_parts(numbered, _DIGIT)
    if numbered:
        numbers = _NUMBER.sub(lambda match: match[0].translate(_AS_DIGITS), numbered)
        yield NormalizedText(numbers, _WORDS, reads_digits=True)
    signed = _matching_parts(lettered, _HAS_SIGNS)
    if signed:
        masked = [word.translate(_TO_MASKS) for word in dict.fromkeys(_MASKED.findall(signed))]
        yield NormalizedText(",".join([signed, *masked]), _SIGNED)


def _as_letters(raw: str) -> str:
    """Digits and signs in letters, and `i` for `l`."""
    if raw.isascii():
        return raw.translate(_AS_LETTERS)
    for sign, letter in _SIGN_LETTERS:  # several times as fast as a table for such a text
        raw = raw.replace(sign, letter)
    return raw


def _one_i(raw: str) -> str:
    return raw.replace("l", "i")


def _in_digits(numeral: re.Match[str]) -> str:
    """The number of years in CJK numerals, such as 十七, in digits; and the word behind it."""
    written, gap, years, behind, *age = numeral[0], *numeral.groups("")
    if behind and COMMA.search(gap):
        return written  # 三、才女 is a list
    value, ones = 0, 0
    for sign in written:
        digit = _CJK_DIGITS.get(sign, 0)
        if digit >= 10:
            value, ones = value + digit * max(1, ones), 0
        elif digit:
            ones = ones * 10 + digit
    return f"{''.join(age)}{value + ones}{years}"


def _matching_parts(text: str, pattern: re.Pattern[str]) -> str:
    """The parts between commas that match a pattern."""
    if not pattern.search(text):
        return ""
    return ",".join(part for part in COMMA.split(text) if pattern.search(part))
