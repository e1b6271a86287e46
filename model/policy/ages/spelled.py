"""Reads words for ages that are masked, or written with digits and signs.

`f*urteen`, `y3ars` and `*ld` become plain words. Every step takes linear time.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import accumulate

from model.policy.ages.languages import ADULT
from model.policy.ages.mistakes import beside, misspelt
from model.policy.ages.terms import ages_below
from model.policy.folding import COMMA, fold

_MASKS = "*#?%&"
_COVERS = "_.-"
_AS_LETTERS = str.maketrans("0134578@$!|+€£#?%&", "oieastbasiitel****")
"""Digits and signs in place of a letter; any sign may also cover another one."""

_SIGNS = re.escape(f"{_MASKS}@$!|+€£")
_AS_MASKS = _AS_LETTERS | str.maketrans(dict.fromkeys(f"{_MASKS}{_COVERS}@$!|+€£1", "*"))
"""The same with stars for what may stand for any letter; a 1 is an i or an l."""

_COVERED = rf"(?<![^\W_])[^\W\d_]{{1,15}}[{_COVERS}][^\W\d_]{{1,15}}(?=[\s_-][yo])"
"""A word with one of the signs that also separate words, before "years" or "old"."""

_WORD = r"[^\s\-_.,;:()\[\]{}<>~/\\\"'=]+"
_WORDS = re.compile(f"({_WORD})")
_COVER = re.compile(f"[{_COVERS}]")
_DISGUISED = re.compile(f"({_COVERED}|{_WORD})")
_MAY_BE_DISGUISED = re.compile(
    rf"[{_SIGNS}0134578{_COVERS}](?:(?<=[^\W\d_][{_SIGNS}])|(?<=[^\W\d_]\d)(?=[^\W_])"
    rf"|(?<=[{_MASKS}])(?=[^\W\d_])|(?<=[{_COVERS}])(?=[^\W\d_]{{1,15}}[\s_-]y))"
)
_SHORT = frozenset(("old", "yrs", "age", "ten", "six", "two", "one", "not", "yet", "let"))
"""The words of three letters that may be disguised; many others would be ordinary words."""

_FIRST_LETTERS, _LAST_LETTERS = frozenset("efst"), frozenset("efmntv")
"""Of the numbers whose misspellings are known, and of these."""

_OTHERS = (
    "grade grader school student class primary elementary middle junior high minor "
    "twenty thirty forty fifty sixty seventy eighty ninety hundred"
)
"""Words of classes, and those that make an age a higher one."""

_MIN_LETTERS = 4
_APART = 48
"""Letters between two words that may belong to one age."""

_MAX_SAID = 200
"""Letters of a part of a text that is said again at once."""


def may_be_disguised(plain: str) -> bool:
    """Whether a folded text has words with digits or signs in place of letters."""
    return bool(_MAY_BE_DISGUISED.search(plain))


def undisguised(plain: str) -> Iterator[str]:
    """The parts of a folded text with such words, in plain words."""
    for tag in dict.fromkeys(COMMA.split(plain)):
        if _MAY_BE_DISGUISED.search(tag):
            yield from _plain_parts(tag)


def _plain_parts(tag: str) -> Iterator[str]:
    pieces = (_DISGUISED if _COVER.search(tag) else _WORDS).split(tag)
    words = {word: plain for word in set(pieces[1::2]) if (plain := _plain(word))}
    if not words:
        return
    places = [place for place in range(1, len(pieces), 2) if pieces[place] in words]
    for place in places:
        pieces[place] = words[pieces[place]]
    said, ends = "".join(pieces), list(accumulate(map(len, pieces)))
    spans = [(ends[place - 1], ends[place]) for place in places]
    start, end = spans[0]
    for next_start, next_end in spans[1:]:
        if next_start - end > _APART or next_end - start > _MAX_SAID:
            yield beside(said, start, end, said[start:end])
            start = next_start
        end = next_end
    yield beside(said, start, end, said[start:end])


@lru_cache(maxsize=4096)
def _plain(written: str) -> str | None:
    """The word of an age that a disguised word may be."""
    if not 3 <= len(written) <= 17 or written.isalpha() or written.isdecimal():
        return None
    letters, known = written.translate(_AS_LETTERS), _words_of_ages()
    first, last = letters[0], letters[-1]
    if candidates := known.get((first, last, len(letters))):
        plain = written.translate(_AS_MASKS)
        plain_start = plain[: plain.find("*")]
        for word in candidates:
            if word.startswith(plain_start) and _fits(word, plain):
                return word
    start, mask, end = letters.partition("*")
    if mask and start and end and "*" not in end:  # for two letters: f*rteen
        for word in known.get((first, last, len(letters) + 1), ()):
            if word.startswith(start) and word.endswith(end) and len(word) > _MIN_LETTERS + 2:
                return word
    if first in _FIRST_LETTERS and last in _LAST_LETTERS:
        return misspelt(letters.replace("*", "e"))
    return None


def _fits(word: str, masked: str) -> bool:
    return all(sign in ("*", letter) for sign, letter in zip(masked, word, strict=True))


@cache
def _words_of_ages() -> Mapping[tuple[str, str, int], list[str]]:
    """The words of all ages by their first and last letter, either may be masked, and length."""
    terms = (_OTHERS, *ages_below(ADULT))
    words = dict.fromkeys(word for term in terms for word in fold(term).split())
    found: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for word in words:
        if word in _SHORT or (word.isalpha() and len(word) >= _MIN_LETTERS):
            first, last, length = word[0], word[-1], len(word)
            found[first, last, length].append(word)
            if word in _SHORT or length > _MIN_LETTERS:
                found["*", last, length].append(word)
                found[first, "*", length].append(word)
    return found
