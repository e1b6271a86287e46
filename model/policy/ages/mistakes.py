"""Finds numbers and years that are misspelt: `forteen years old`, `14 yaers old`, `aged thriteen`.

A misspelling has one letter more, fewer or changed, or it sounds alike. Every step takes linear
time.
"""

import re
from collections.abc import Iterator, Mapping, Set
from functools import cache

_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
_NUMBERS = ("seven", "eight", "eleven", "twelve", *_TEENS)
_LIMIT = "eighteen"
_RIGHT = frozenset((*_NUMBERS, "ten", "nine", "six", "five", "four", "three", "two", "one"))
_OTHER_WORDS = frozenset(
    (
        *(_LIMIT, "nineteen", "twenty", "thirty", "forty", "fourty", "fifty", "sixty", "seventy"),
        *("eighty", "ninety", "hundred", "seventh", "sevens", "eighth", "eights", "eighteenth"),
        *("twelfth", "steven", "sever", "severn", "severe"),
    )
)
"""Ages of adults, and words that look like a misspelt number."""

_SHORT_MISTAKES = {"thre": "three", "trhee": "three", "fiv": "five", "siks": "six"}
"""Words of so few letters are too often like others."""

_BY_LETTER = {first: [one for one in _NUMBERS if one[0] == first] for first in "efst"}
_MIN_LETTERS = 5
_MAX_LETTERS = 12
BESIDE = 24
"""Letters before and after a word that may belong to an age."""

_OLD = r"[\W_]{0,3}(?:o[l1|]d?|odl|0ld|young|of[\s_-]age)"
_YEARS = re.compile(rf"y(?<=[^\W\d_][\s_-].)(?:([aers]{{1,5}})(?={_OLD})|/?[\s_]?[o0](?![^\W_]))")
_LAST_WORD = re.compile(rf"[a-z]{{3,{_MAX_LETTERS}}}$")
_AS_YEARS = frozenset(("ear", "ears", "r", "rs"))
_BEFORE_AGES = tuple(
    (needed, re.compile(rf"{needed}(?<![^\W_].{{{len(needed)}}}){rest}([a-z]{{4,12}})(?![^\W_])"))
    for needed, rest in (
        ("age", r"[ds]?[\s_:=-]{1,3}(?:of[\s_-])?"),
        ("turn", r"(?:s|ed|ing)[\s_-]"),
        ("under", r"[\s_-]"),
        ("below", r"[\s_-]"),
        ("yet", r"[\s_-]"),
    )
)
"""What is before a number that is an age without years, and how it goes on."""

_LIMITS = ("under", "below", "yet")

_ELSEWHERE = {
    "ans": "treize quatorze quinze seize",
    "anos": "trece catorce quince dieciseis diecisiete treze quatorze quinze dezesseis dezessete",
    "anni": "undici dodici tredici quattordici quindici sedici diciassette",
    "jahre": "zwolf dreizehn vierzehn funfzehn fuenfzehn sechzehn siebzehn",
}
"""Years in other languages, and the numbers before them that are ages and have enough letters."""

_YEARS_ELSEWHERE = {f" {years}": re.compile(rf" {years}(?![^\W_])") for years in _ELSEWHERE}
_GLUED = re.compile(r"(?<![^\W_])([a-z]{5,30}?)y(?:ea)?rs?old(?!er|est)")

_HINTS = (*(needed for needed, _ in _BEFORE_AGES), *_YEARS_ELSEWHERE, "rold", "rsold")
"""One of them is in every such age but those before years in English."""


def without_mistakes(plain: str) -> Iterator[str]:
    """The parts of a folded text with misspelt ages, in plain words."""
    for match in _YEARS.finditer(plain):
        yield from _before_years(match)
    if any(map(plain.__contains__, _HINTS)):
        yield from _behind_words(plain)
        yield from _elsewhere(plain)
        yield from _glued(plain)


def _behind_words(plain: str) -> Iterator[str]:
    """Ages behind words such as "under"."""
    for needed, pattern in _BEFORE_AGES:
        if needed in plain:
            for match in pattern.finditer(plain):
                if number := misspelt(match[1], is_limit=needed in _LIMITS):
                    yield beside(plain, *match.span(1), number)


def _glued(plain: str) -> Iterator[str]:
    """Ages that are glued to other words."""
    if "rold" in plain or "rsold" in plain:
        for match in _GLUED.finditer(plain):
            number, length = _misspelt_at_end(match[1])
            if number:
                yield beside(plain, *match.span(), f"{match[1][:-length]} {number} years old ")


def _before_years(years: re.Match[str]) -> Iterator[str]:
    """The age before a word for years, if one of both is misspelt."""
    plain, start = years.string, years.start()
    if before := _LAST_WORD.search(plain, max(0, start - _MAX_LETTERS - 1), start - 1):
        number = before[0] if before[0] in _RIGHT else misspelt(before[0])
        if number and (number != before[0] or (years[1] or "rs") not in _AS_YEARS):
            yield beside(plain, before.start(), years.end(), f"{number} years old")


def _elsewhere(plain: str) -> Iterator[str]:
    """Ages in other languages."""
    for years, pattern in _YEARS_ELSEWHERE.items():
        if years in plain:
            for match in pattern.finditer(plain):
                start = match.start()
                word = _LAST_WORD.search(plain, max(0, start - _MAX_LETTERS), start)
                if word and (number := _misspelt_elsewhere(word[0], years)):
                    yield beside(plain, *word.span(), number)


def beside(text: str, start: int, end: int, said: str) -> str:
    """What is said in place of a part of a text, between the whole words beside it."""
    before, after = text[max(0, start - BESIDE) : start], text[end : end + BESIDE]
    if start > BESIDE and " " in before:
        before = before.partition(" ")[2]
    if end + BESIDE < len(text) and " " in after:
        after = after.rpartition(" ")[0]
    return before + said + after


def misspelt(word: str, *, is_limit: bool = False) -> str | None:
    """The number of which a word is a misspelling; None if it is spelled right, or another word."""
    if word in _SHORT_MISTAKES:
        return _SHORT_MISTAKES[word]
    numbers = _BY_LETTER.get(word[0])
    if not numbers or len(word) < _MIN_LETTERS - 1 or word in _RIGHT or word in _OTHER_WORDS:
        return None
    deletions, sound = _deletions(word), _sound(word)
    for number in (_LIMIT, *numbers) if is_limit and word[0] == _LIMIT[0] else numbers:
        known, sounds = _known(number)
        if not deletions.isdisjoint(known) or (
            sound == sounds and (number == "twelve" or word[-1] in "nm")
        ):
            return number
    return None


def _misspelt_at_end(word: str) -> tuple[str | None, int]:
    """The number whose misspelling a word ends with, and the letters of this."""
    for length in range(min(len(word), 10), _MIN_LETTERS - 1, -1):
        end = word[-length:]
        if end in _OTHER_WORDS or end in _RIGHT:
            break
        if number := misspelt(end):
            return number, length
    return None, 0


@cache
def _known(number: str) -> tuple[Set[str], str]:
    return _deletions(number), _sound(number)


def _deletions(word: str) -> Set[str]:
    """A word, and the same without each of its letters: words that share one differ little."""
    return {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}


_ALIKE: Mapping[str, str] = {"v": "f", "th": "t", "cks": "x", "ks": "x"}
_VOWELS = re.compile(r"(?<!^)[aeiouy]")
_RUNS = re.compile(r"(.)\1+")


def _sound(word: str) -> str:
    """The consonants of a word, those that sound alike as one letter."""
    for written, heard in _ALIKE.items():
        word = word.replace(written, heard)
    return _RUNS.sub(r"\1", _VOWELS.sub("", f"{word[:-1]}{word[-1].replace('m', 'n')}"))


def _misspelt_elsewhere(word: str, years: str) -> str | None:
    """The number before years in another language of which a word is a misspelling."""
    known = _known_elsewhere(years)
    if len(word) < _MIN_LETTERS or word in known:
        return None
    heard = _heard(word)
    deletions = _deletions(heard)
    for number, (sound, further) in known.items():
        if sound in deletions or heard in further:
            return number
    return None


@cache
def _known_elsewhere(years: str) -> Mapping[str, tuple[str, Set[str]]]:
    numbers = _ELSEWHERE[years.strip()].split()
    return {number: (_heard(number), _deletions(_heard(number))) for number in numbers}


_HEARD = (
    *(("qu", "k"), ("kw", "k"), ("ca", "ka"), ("c", "s"), ("z", "s"), ("v", "f"), ("h", "")),
    ("y", "i"),
)


def _heard(word: str) -> str:
    """A word with one letter for those that sound alike in French, Spanish, Italian or German."""
    for written, heard in _HEARD:
        word = word.replace(written, heard)
    return _RUNS.sub(r"\1", word)
