"""Finds terms in a text regardless of how they are written.

An Aho-Corasick automaton searches the letters of the text without gaps. A match counts if it
starts and ends at word boundaries. This finds words that were split, but not parts of words.
The work for each match of the automaton is constant, so the time grows with the text only.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, compress, pairwise
from operator import and_
from typing import NamedTuple

from ahocorasick_rs import AhoCorasick

from model.policy.glued import Part, Piece, Word
from model.policy.normalize import Gap, NormalizedText, squeeze, squeeze_runs
from model.policy.patterns import Pattern, parts_of

_MAX_WORDS_BETWEEN = 2
"""Maximum number of words in place of the three dots of a term."""

_MIN_SPLIT_STEM_LETTERS = 7
"""Minimum letters of a stem that is found although its word is split and goes on."""

_MAX_WAYS = 8192
"""Maximum number of spellings whose bounds are kept."""

_MAX_WORDS = 4096
"""Maximum number of words whose parts are kept."""

_HOLES = frozenset("-_.'~`·=^:;/\"\\°@$!|+£€<>©®¢")
"""Signs that may cover one letter of a word, although they also separate words."""

_Match = tuple[int, int, int]
"""A match of the automaton: pattern, begin and end in the squeezed letters."""


_Way = tuple[Pattern, list[Part]]
"""One way to write some parts of terms."""


class TermMatch(NamedTuple):
    """A term, found at the tokens `first` to `last`."""

    term: int
    first: int
    last: int


class _Found(NamedTuple):
    """All matches of the automaton, those that start with a token, those that end with one."""

    matches: list[_Match]
    heads: list[_Match]
    tails: list[_Match]


class TermMatcher:
    """Searches for a fixed list of terms; a match gives the index of its term.

    `fillers` are words that may be glued to a term.
    """

    def __init__(self, terms: Sequence[str], fillers: Iterable[str] = ()) -> None:
        """Compile the terms.

        Only their letters are kept; how each may be written is worked out when it is met.

        Raises:
            PolicyError: a term could not match anything.
        """
        self._terms = len(terms)
        self._written = [*terms, *fillers]
        self._parts = array("B")
        numbers: dict[str, int] = {}
        """The squeezed letters of all spellings, numbered."""
        self._first_term = array("L")
        self._other_terms: dict[int, list[int]] = defaultdict(list)
        before, after, glued = bytearray(), bytearray(), bytearray()
        for term, written in enumerate(self._written):
            parts = parts_of(written)
            self._parts.append(len(parts))
            for spelling in chain.from_iterable(part.spellings() for part in parts):
                squeezed = squeeze(spelling.letters)
                index = numbers.setdefault(squeezed, len(numbers))
                if index == len(self._first_term):
                    self._first_term.append(term)
                    before.append(spelling.is_open_before)
                    after.append(spelling.is_open_after)
                    glued.append(spelling.is_glued)
                    continue
                if term != self._first_term[index]:
                    self._other_terms[index].append(term)
                before[index] |= spelling.is_open_before
                after[index] |= spelling.is_open_after
                glued[index] |= spelling.is_glued
        self._is_open_before, self._is_open_after, self._is_glued = before, after, glued
        self._is_open = bytes(map(and_, self._is_open_before, self._is_open_after))
        self._has_open_words = any(map(str.isascii, compress(numbers, self._is_open)))
        self._automaton = AhoCorasick(list(numbers)) if numbers else None
        self._ways = lru_cache(_MAX_WAYS)(self._ways_of)
        self._glued_terms = lru_cache(_MAX_WORDS)(self._terms_glued)

    def _terms_of(self, index: int) -> tuple[int, ...]:
        """The terms of which a part may be written with the squeezed letters of this number."""
        return (self._first_term[index], *self._other_terms.get(index, ()))

    def _ways_of(self, index: int, squeezed: str) -> list[_Way]:
        """The ways to write parts of terms that have these squeezed letters."""
        ways: dict[Pattern, list[Part]] = defaultdict(list)
        for term in dict.fromkeys(self._terms_of(index)):
            for number, part in enumerate(parts_of(self._written[term])):
                for spelling in part.spellings():
                    if squeeze(spelling.letters) == squeezed:
                        ways[part.pattern(spelling)].append((term, number))
        return list(ways.items())

    def find(
        self, text: NormalizedText, is_settled: Callable[[int], bool] = lambda _: False
    ) -> Iterator[TermMatch]:
        """The terms in a text, except those that are settled when they are reached."""
        if self._automaton is None:
            return
        matches = self._automaton.find_matches_as_indexes(text.squeezed, overlapping=True)
        firsts, lasts = text.first_tokens, text.last_tokens
        found = _Found(
            matches,
            heads=[match for match in matches if match[1] in firsts],
            tails=[match for match in matches if match[2] in lasts],
        )
        candidates = self._unsettled(list(self._candidates(text, found)), is_settled)
        places = {index: slice(begin, end) for index, begin, end in candidates}
        possible = self._possible({index: text.squeezed[at] for index, at in places.items()})
        pieces: dict[Part, dict[int, int]] = defaultdict(dict)
        """The tokens of each part of a term: the last by the first."""
        for index, begin, end in candidates:
            for pattern, parts in possible[index]:
                if is_settled(parts[0][0]) and all(is_settled(term) for term, _ in parts[1:]):
                    continue
                tokens = _tokens_of(text, begin, end, pattern)
                if tokens is None:
                    continue
                for term, part in parts:
                    if self._parts[term] > 1:
                        pieces[term, part][tokens[0]] = tokens[1]
                    else:
                        yield TermMatch(term, *tokens)
        yield from self._joined(pieces)
        yield from self._in_glued_words(text, found, is_settled)

    def _possible(self, found: Mapping[int, str]) -> dict[int, list[_Way]]:
        """These patterns, by number, with the terms of which every part is among them."""
        ways = {index: self._ways(index, letters) for index, letters in found.items()}
        parts = {part for each in ways.values() for _, ps in each for part in ps}
        counts = Counter(term for term, _ in parts if term < self._terms)
        possible = {term for term, count in counts.items() if count == self._parts[term]}
        return {
            index: [
                (pattern, kept)
                for pattern, ps in each
                if (kept := [part for part in ps if part[0] in possible])
            ]
            for index, each in ways.items()
        }

    def _candidates(self, text: NormalizedText, found: _Found) -> Iterator[_Match]:
        """The matches that start and end at word boundaries, or may start or end elsewhere."""
        firsts, lasts = text.first_tokens, text.last_tokens
        before, after = self._is_open_before, self._is_open_after
        yield from (m for m in found.heads if m[2] in lasts or after[m[0]])
        yield from (m for m in found.tails if before[m[0]] and m[1] not in firsts)
        if self._has_open_words or not text.squeezed.isascii():
            is_open = self._is_open
            yield from (
                m
                for m in found.matches
                if is_open[m[0]] and m[1] not in firsts and m[2] not in lasts
            )

    def _joined(self, pieces: dict[Part, dict[int, int]]) -> Iterator[TermMatch]:
        """Matches of terms with several parts, with at most a few words between the parts."""
        for (term, part), starts in list(pieces.items()):
            for first, last in starts.items() if part == 0 else ():
                reached = {last}
                for later in range(1, self._parts[term]):
                    known = pieces[term, later]
                    reached = {
                        known[start]
                        for at in reached
                        for start in range(at + 1, at + 2 + _MAX_WORDS_BETWEEN)
                        if start in known
                    }
                if reached:
                    yield TermMatch(term, first, max(reached))

    def _unsettled(
        self, matches: Sequence[_Match], is_settled: Callable[[int], bool]
    ) -> list[_Match]:
        """The matches whose terms are not all settled."""
        wanted = {
            index
            for index in {match[0] for match in matches}
            if not all(is_settled(t) for t in self._terms_of(index) if t < self._terms)
        }
        return [match for match in matches if match[0] in wanted]

    def _in_glued_words(
        self, text: NormalizedText, found: _Found, is_settled: Callable[[int], bool]
    ) -> Iterator[TermMatch]:
        """The terms in tokens that consist only of terms and fillers, but are not terms."""
        firsts, lasts, glued = text.first_tokens, text.last_tokens, self._is_glued
        tokens = {firsts[match[1]] for match in found.heads if glued[match[0]]}
        tokens &= {lasts[match[2]] for match in found.tails if glued[match[0]]}
        if not tokens:
            return
        tokens -= {lasts[m[2]] for m in found.heads if firsts[m[1]] == lasts.get(m[2])}
        for token in tokens:
            bounds = slice(text.starts[token - 1], text.ends[token - 1])
            for term in self._glued_terms(text.raw[bounds], text.row[bounds]):
                if not is_settled(term):
                    yield TermMatch(term, token - 1, token - 1)

    def _terms_glued(self, raw: str, row: str) -> frozenset[int]:
        """The terms in a word that consists only of terms and fillers; `row` as in the text."""
        automaton = self._automaton
        if automaton is None or not any(map(str.isalpha, raw)):
            return frozenset()
        squeezed, runs = squeeze_runs(row)
        word = Word(raw, list(accumulate(runs, initial=0)))
        matches = automaton.find_matches_as_indexes(squeezed, overlapping=True)
        pieces = [
            Piece(pattern, parts, begin, end)
            for index, begin, end in sorted(matches, key=lambda match: match[1:])
            if self._is_glued[index]
            for pattern, parts in self._ways(index, squeezed[begin:end])
            if pattern.is_glued
        ]
        chained = word.chained(pieces)
        return frozenset(t for piece in chained for t, _ in piece.parts if t < self._terms)


# -- matches at word boundaries ------------------------------------------------------------------


def _tokens_of(
    text: NormalizedText, begin: int, end: int, pattern: Pattern
) -> tuple[int, int] | None:
    """The first and last token of a match, the fewest possible; None if it is not whole words."""
    places, runs, starts, ends = text.places, pattern.runs, text.starts, text.ends
    for place, least in pattern.long_runs:
        if places[begin + place + 1] - places[begin + place] < least:
            return None
    at, stop = places[begin], places[end]
    first_end, last_start = places[begin + 1] - runs[0], places[end - 1] + runs[-1]
    is_one_run = end == begin + 1
    if pattern.is_open_before:
        at = at if is_one_run else first_end
        first = bisect_right(starts, at) - 1
    else:
        first = bisect_right(starts, first_end) - 1
        if first < 0 or starts[first] < at:
            return None
        at = starts[first]
    if pattern.is_open_after:
        stop = at + pattern.letters if is_one_run else last_start
        last = bisect_left(ends, stop)
    else:
        last = bisect_left(ends, max(last_start, at + pattern.letters))
        if last == len(ends) or ends[last] > stop:
            return None
        stop = ends[last]
    if at > first_end or stop < last_start or stop - at < pattern.letters:
        return None
    if not _reads_as_term(text, pattern, at, stop, first, last):
        return None
    return first, last


def _reads_as_term(
    text: NormalizedText, pattern: Pattern, begin: int, end: int, first: int, last: int
) -> bool:
    """Whether these tokens, with the gaps between them, form this term."""
    if text.has_numbers and not pattern.has_digits:
        letters = text.raw[begin:end]
        if not (letters[0].isalpha() or any(map(str.isalpha, letters))):
            return False  # a number is not a word
    if pattern.starts_tag and not text.ends_tag(first):
        return False
    if pattern.ends_tag and not text.ends_tag(last + 1):
        return False
    if pattern.hole:
        is_pair = last == first + 1 and text.ends[first] - text.starts[first] == pattern.hole
        return (
            is_pair
            and text.between(last) in _HOLES
            and text.between(first) not in _HOLES
            and text.between(last + 1) not in _HOLES
        )
    if first == last:
        return True
    tokens = range(first, last + 1)
    if text.ends[last] - text.starts[first] == len(tokens):
        return True  # spelled out, with anything between the letters
    if len(tokens) != pattern.words and not _may_be_split(text, pattern, begin, end, tokens):
        return False
    gaps = [text.gap(token) for token in tokens[1:]]
    if max(gaps) >= Gap.NUMBER:
        return False
    return pattern.has_digits or not text.has_numbers or not _has_number(text, first, gaps)


def _may_be_split(
    text: NormalizedText, pattern: Pattern, begin: int, end: int, tokens: range
) -> bool:
    """Whether these tokens may be a term with words that were split.

    "an all" is not "anal", because a word is either split or stretched, and "who reads" is not
    "whore*", because a short stem would be in many words.
    """
    is_part = text.starts[tokens[0]] < begin or end < text.ends[tokens[-1]]
    if is_part:
        return pattern.needs_no_spaces or pattern.letters >= _MIN_SPLIT_STEM_LETTERS
    return end - begin == pattern.letters


def _has_number(text: NormalizedText, first: int, gaps: Sequence[Gap]) -> bool:
    """Whether a token from `first` on is a number that touches no other token."""
    if text.raw[text.starts[first] : text.ends[first + len(gaps)]].isalpha():
        return False
    for token, sides in enumerate(pairwise([Gap.TAG, *gaps, Gap.TAG]), start=first):
        letters = text.raw[text.starts[token] : text.ends[token]]
        if Gap.NONE not in sides and not any(map(str.isalpha, letters)):
            return True
    return False
