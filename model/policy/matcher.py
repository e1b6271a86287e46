"""Finds terms in a text, however they are written. Knows no rules.

One automaton (Aho-Corasick) runs over all letters of a text in a row; what it finds counts where it
begins and ends with a word. So words that were split are found, and parts of other words are not.
"""

import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from model.errors import PolicyError
from model.policy.normalize import (
    Gap,
    NormalizedText,
    fold,
    fold_tokens,
    fold_variants,
    normalize,
    squeeze_runs,
)

_ELLIPSIS = " ... "
_MOST_BETWEEN = 2
"""Words where a term has three dots."""

_SHORTEST_WORD = 3
"""Letters of what may be glued to other words, masked or in the plural."""

_ENDINGS = dict.fromkeys("sxzh", ("es", "ez"))
_MAX_TERM_CHARS = 100


_Match = tuple[int, int, int]
"""Of the automaton: pattern, begin and end in the squeezed row."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One way to write (a part of) a term, as letters in a row.

    `words` are the lengths of its words, `runs` the least lengths of its runs of one letter.
    `is_open_*`: it may go on before or after.
    """

    term: int
    part: int
    words: tuple[int, ...]
    runs: tuple[int, ...]
    is_open_before: bool
    is_open_after: bool
    is_tag: bool
    has_digits: bool
    is_glued: bool

    @property
    def is_whole(self) -> bool:
        return not (self.is_open_before or self.is_open_after)


class TermMatch(NamedTuple):
    """Where (a part of) a term stands in a reading: tokens `first` to `last`.

    `is_literal`: these are its words, letter for letter, and nothing taken apart or put together.
    """

    term: int
    part: int
    first: int
    last: int
    is_literal: bool


class TermMatcher:
    """A fixed set of terms, known by their place in the list; `fillers` only stand beside them."""

    def __init__(self, terms: Sequence[str], fillers: Iterable[str] = ()) -> None:
        patterns: dict[str, list[_Pattern]] = defaultdict(list)
        self._parts = []
        for number, term in enumerate([*terms, *fillers]):
            for squeezed, pattern in _patterns(number, term):
                patterns[squeezed].append(pattern)
            self._parts.append(term.count(_ELLIPSIS) + 1)
        self._terms = len(terms)
        self._patterns = list(patterns.values())
        self._automaton = AhoCorasick(list(patterns)) if patterns else None

    def find(self, text: str) -> Iterator[list[TermMatch]]:
        """All terms in a text, for each way in which it can be read."""
        if self._automaton is None:
            return
        for reading in chain.from_iterable(map(normalize, fold_variants(text))):
            matches = self._automaton.find_matches_as_indexes(reading.squeezed, overlapping=True)
            hits = list(self._words(reading, matches))
            whole = [hit for hit in hits if self._parts[hit.term] == 1]
            whole += self._joined([hit for hit in hits if self._parts[hit.term] > 1])
            yield [hit for hit in whole if hit.term < self._terms]

    def _words(self, reading: NormalizedText, matches: Sequence[_Match]) -> Iterator[TermMatch]:
        """The matches that are words of their own, and the terms of words glued together."""
        places, starts, ends = reading.places, reading.starts, reading.ends
        begun: set[int] = set()
        ended: set[int] = set()
        for index, begin, end in matches:
            beginning = range(
                bisect_left(starts, places[begin]), bisect_left(starts, places[begin + 1])
            )
            ending = range(bisect_right(ends, places[end - 1]), bisect_right(ends, places[end]))
            for pattern in self._patterns[index]:
                if (beginning or pattern.is_open_before) and (ending or pattern.is_open_after):
                    hit = _hit(reading, _Row(reading, begin, end), pattern)
                    if hit is not None:
                        yield hit
            begun.update(beginning)
            ended.update(ending)
        tokens = begun & ended
        if tokens:
            yield from _glued(reading, self._inside(reading, matches, tokens))

    def _inside(
        self, reading: NormalizedText, matches: Sequence[_Match], tokens: set[int]
    ) -> dict[int, list["_Inside"]]:
        """What may be parts of these tokens."""
        inside: dict[int, list[_Inside]] = defaultdict(list)
        for index, begin, end in matches:
            token = bisect_left(reading.ends, reading.places[begin + 1])
            if token in tokens:
                row = _Row(reading, begin, end)
                inside[token] += [
                    _Inside(row, pattern) for pattern in self._patterns[index] if pattern.is_glued
                ]
        return inside

    def _joined(self, hits: list[TermMatch]) -> Iterator[TermMatch]:
        """Terms of several parts with at most a few words between."""
        places: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for hit in hits:
            places[hit.term, hit.part][hit.first] = hit.last
        for (term, part), starts in places.items():
            if part:
                continue
            for first, last in starts.items():
                reached = {last}
                for later in range(1, self._parts[term]):
                    known = places.get((term, later), {})
                    reached = {
                        known[start]
                        for at in reached
                        for start in range(at + 1, at + 2 + _MOST_BETWEEN)
                        if start in known
                    }
                if reached:
                    yield TermMatch(term, 0, first, max(reached), is_literal=False)


class _Row:
    """A match in places of the row: its first and last run of letters, and what is between."""

    __slots__ = ("begin", "end", "first", "first_end", "last", "last_start", "reading")

    def __init__(self, reading: NormalizedText, begin: int, end: int) -> None:
        self.reading, self.begin, self.end = reading, begin, end
        places = reading.places
        self.first, self.first_end = places[begin], places[begin + 1]
        self.last_start, self.last = places[end - 1], places[end]

    def has(self, runs: tuple[int, ...]) -> bool:
        """Whether every run of letters is at least as long as in the term."""
        places = self.reading.places
        return all(
            least == 1 or places[at + 1] - places[at] >= least
            for at, least in enumerate(runs, start=self.begin)
        )


def _hit(reading: NormalizedText, row: _Row, pattern: _Pattern) -> TermMatch | None:
    """The match as a word or words of its own, if it is: the fewest that it can be."""
    runs, begin, end = pattern.runs, row.first, row.last
    if pattern.is_open_before:
        first = bisect_right(reading.starts, begin) - 1
    else:
        first = bisect_right(reading.starts, row.first_end - runs[0]) - 1
        if first < 0 or reading.starts[first] < begin:
            return None
        begin = reading.starts[first]
    if pattern.is_open_after:
        last = bisect_left(reading.ends, end)
    else:
        last = bisect_left(reading.ends, max(row.last_start + runs[-1], begin + sum(runs)))
        if last == len(reading.ends) or reading.ends[last] > end:
            return None
        end = reading.ends[last]
    if begin > row.first_end - runs[0] or end < row.last_start + runs[-1] or not row.has(runs):
        return None
    if end - begin < sum(runs) or not _is_read(reading, pattern, begin, end, first, last):
        return None
    lengths = tuple(reading.ends[at] - reading.starts[at] for at in range(first, last + 1))
    is_literal = lengths == pattern.words and reading.raw[begin:end].isalpha()
    return TermMatch(pattern.term, pattern.part, first, last, is_literal)


def _is_read(
    reading: NormalizedText, pattern: _Pattern, begin: int, end: int, first: int, last: int
) -> bool:
    """Whether tokens stand so that they are read as this term."""
    if not pattern.has_digits and not any(map(str.isalpha, reading.raw[begin:end])):
        return False  # a number is no word
    if pattern.is_tag and not (reading.ends_tag(first) and reading.ends_tag(last + 1)):
        return False
    if first == last:
        return True
    tokens = range(first, last + 1)
    if all(reading.ends[token] - reading.starts[token] == 1 for token in tokens):
        return True  # spelled out: whatever stands between the letters
    gaps = [reading.gap(token) for token in tokens[1:]]
    if Gap.TAG in gaps:
        return False
    return pattern.has_digits or not _has_number(reading, first, gaps)


def _has_number(reading: NormalizedText, first: int, gaps: Sequence[Gap]) -> bool:
    """Whether one of the tokens from `first` on is a number that touches none of the others."""
    for token, sides in enumerate(pairwise([Gap.TAG, *gaps, Gap.TAG]), start=first):
        letters = reading.raw[reading.starts[token] : reading.ends[token]]
        if Gap.NONE not in sides and not any(map(str.isalpha, letters)):
            return True
    return False


# -- words glued together ----------------------------------------------------------------------


class _Inside(NamedTuple):
    """A term that may be a part of a token."""

    row: _Row
    pattern: _Pattern


def _glued(reading: NormalizedText, inside: dict[int, list[_Inside]]) -> Iterator[TermMatch]:
    """The terms of tokens that are nothing but terms and fillers."""
    for token, pieces in inside.items():
        start, end = reading.starts[token], reading.ends[token]
        if not (
            any(piece.row.first <= start for piece in pieces)
            and any(piece.row.last >= end for piece in pieces)
        ):
            continue
        fitting = [piece for piece in pieces if _fits(piece, start, end)]
        fitting.sort(key=lambda piece: (piece.row.begin, piece.row.end))
        for piece in _in_a_chain(fitting, start, end):
            yield TermMatch(piece.pattern.term, 0, token, token, is_literal=False)


def _fits(piece: _Inside, start: int, end: int) -> bool:
    """Whether a piece lies within its token, and has letters."""
    row, runs = piece.row, piece.pattern.runs
    if row.first_end - runs[0] < start or row.last_start + runs[-1] > end:
        return False
    return row.has(runs) and any(map(str.isalpha, row.reading.raw[row.first : row.last]))


def _in_a_chain(pieces: list[_Inside], start: int, end: int) -> Iterator[_Inside]:
    """The pieces of which a row leads from a token's start to its end."""
    at: dict[int, list[int]] = defaultdict(list)
    is_reached = [False] * len(pieces)
    for number, piece in enumerate(pieces):
        row = piece.row
        is_reached[number] = row.first <= start or any(
            _follows(pieces[before], piece)
            for place in (row.begin, row.begin + 1)
            for before in at[place]
        )
        if is_reached[number]:
            at[row.end].append(number)
    at.clear()
    for number in reversed(range(len(pieces))):
        row = pieces[number].row
        if is_reached[number] and (
            row.last >= end
            or any(
                _follows(pieces[number], pieces[after])
                for place in (row.end, row.end - 1)
                for after in at[place]
            )
        ):
            at[row.begin].append(number)
            yield pieces[number]


def _follows(one: _Inside, other: _Inside) -> bool:
    """Whether a piece goes on where another ends; they may share a run that is long enough."""
    if one.row.end == other.row.begin:
        return True
    run = one.row.last - one.row.last_start
    return one.row.end - 1 == other.row.begin and run >= (
        one.pattern.runs[-1] + other.pattern.runs[0]
    )


# -- from a term to what it may look like --------------------------------------------------------


def _patterns(number: int, term: str) -> Iterator[tuple[str, _Pattern]]:
    """Every way to write a term, squeezed.

    Raises:
        PolicyError: nothing could ever be found by it.
    """
    text = term.removeprefix("=").strip()
    if len(text) > _MAX_TERM_CHARS:
        raise PolicyError(f"the term {term[:20]!r}… is longer than {_MAX_TERM_CHARS} characters")
    parts = text.split(_ELLIPSIS)
    for part, words in enumerate(parts):
        bare = words.strip("* ")
        if "*" in bare or "..." in bare:
            raise PolicyError(
                f"the term {term!r} has a * or dots where they mean nothing: a * stands at an end, "
                "three dots stand between spaces"
            )
        tokens = fold_tokens(fold(bare.lower()))
        letters = "".join(tokens)
        if len(letters) < 2 and not _runs_on(letters):
            raise PolicyError(f"the term {term!r} needs two letters that can be read")
        about = _Pattern(
            term=number,
            part=part,
            words=tuple(map(len, tokens)),
            runs=(),
            is_open_before=_runs_on(letters[:1]) or words.startswith("*"),
            is_open_after=_runs_on(letters[-1:]) or words.endswith("*"),
            is_tag=term.startswith("="),
            has_digits=not letters.isalpha(),
            is_glued=False,
        )
        is_alone = len(parts) == 1 and about.is_whole and not about.is_tag
        about = replace(about, is_glued=is_alone and _is_word(tokens))
        for written in {letters, *_plurals(tokens, about), *_masked(tokens, about)}:
            squeezed, runs = squeeze_runs(written)
            yield squeezed, replace(about, runs=runs)


def _runs_on(letter: str) -> bool:
    """Whether a letter is of a script that needs no spaces between words."""
    return len(letter) > 0 and unicodedata.category(letter[0]) == "Lo"


def _is_word(tokens: Sequence[str]) -> bool:
    return len(tokens) == 1 and len(tokens[0]) >= _SHORTEST_WORD and tokens[0].isalpha()


def _plurals(tokens: Sequence[str], about: _Pattern) -> Iterator[str]:
    if about.is_whole and tokens[-1].isalpha() and len(tokens[-1]) >= _SHORTEST_WORD:
        letters = "".join(tokens)
        yield from (letters + ending for ending in ("s", "z", *_ENDINGS.get(letters[-1], ())))
        if letters[-1] == "y":
            yield letters[:-1] + "ies"


def _masked(tokens: Sequence[str], about: _Pattern) -> Iterator[str]:
    """A word with a star for one of its inner letters."""
    if _is_word(tokens) and not about.is_open_before and not about.is_tag:
        word = tokens[0]
        yield from (f"{word[:at]}*{word[at + 1 :]}" for at in range(1, len(word) - 1))
