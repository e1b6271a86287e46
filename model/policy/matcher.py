"""Finds terms in a text regardless of how they are written.

An Aho-Corasick automaton searches the letters of the text without gaps. A match counts if it
starts and ends at word boundaries. This finds words that were split, but not parts of words.
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
_MAX_WORDS_BETWEEN = 2
"""Maximum number of words in place of the three dots of a term."""

_MIN_WORD_LETTERS = 3
"""Minimum letters of a word that may be glued to others, masked or in the plural."""

_PLURAL_ENDINGS = dict.fromkeys("sxzh", ("es", "ez"))
_MAX_TERM_CHARS = 100

_Match = tuple[int, int, int]
"""A match of the automaton: pattern, begin and end in the squeezed letters."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One way to write a term, or a part of it, as letters without gaps.

    `words` are the lengths of its words, `runs` the minimum lengths of its runs of one letter.
    `is_open_before` and `is_open_after` mean that a word may continue there.
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
    """A term, or a part of it, found at the tokens `first` to `last`.

    `is_literal` means that the tokens are its words, letter for letter, neither split nor joined.
    """

    term: int
    part: int
    first: int
    last: int
    is_literal: bool


class TermMatcher:
    """Searches for a fixed list of terms; a match gives the index of its term.

    `fillers` are words that may be glued to a term.
    """

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

    def find(self, prompt: str) -> Iterator[list[TermMatch]]:
        """The terms in a prompt, one list for each way to normalize it."""
        if self._automaton is None:
            return
        for text in chain.from_iterable(map(normalize, fold_variants(prompt))):
            matches = self._automaton.find_matches_as_indexes(text.squeezed, overlapping=True)
            found = list(self._word_matches(text, matches))
            whole = [match for match in found if self._parts[match.term] == 1]
            whole += self._joined([match for match in found if self._parts[match.term] > 1])
            yield [match for match in whole if match.term < self._terms]

    def _word_matches(self, text: NormalizedText, matches: Sequence[_Match]) -> Iterator[TermMatch]:
        """The matches at word boundaries, and the terms in words that are glued together."""
        places, starts, ends = text.places, text.starts, text.ends
        begun: set[int] = set()
        ended: set[int] = set()
        for index, begin, end in matches:
            beginning = range(
                bisect_left(starts, places[begin]), bisect_left(starts, places[begin + 1])
            )
            ending = range(bisect_right(ends, places[end - 1]), bisect_right(ends, places[end]))
            for pattern in self._patterns[index]:
                if (beginning or pattern.is_open_before) and (ending or pattern.is_open_after):
                    match = _word_match(text, _Span(text, begin, end), pattern)
                    if match is not None:
                        yield match
            begun.update(beginning)
            ended.update(ending)
        tokens = begun & ended
        if tokens:
            yield from _glued(text, self._pieces(text, matches, tokens))

    def _pieces(
        self, text: NormalizedText, matches: Sequence[_Match], tokens: set[int]
    ) -> dict[int, list["_Piece"]]:
        """The patterns that may be parts of these tokens."""
        pieces: dict[int, list[_Piece]] = defaultdict(list)
        for index, begin, end in matches:
            token = bisect_left(text.ends, text.places[begin + 1])
            if token in tokens:
                span = _Span(text, begin, end)
                pieces[token] += [
                    _Piece(span, pattern) for pattern in self._patterns[index] if pattern.is_glued
                ]
        return pieces

    def _joined(self, found: list[TermMatch]) -> Iterator[TermMatch]:
        """Matches of terms with several parts, with at most a few words between the parts."""
        places: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
        for match in found:
            places[match.term, match.part][match.first] = match.last
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
                        for start in range(at + 1, at + 2 + _MAX_WORDS_BETWEEN)
                        if start in known
                    }
                if reached:
                    yield TermMatch(term, 0, first, max(reached), is_literal=False)


class _Span:
    """A match as offsets in the letters of a text, with its first and last run of one letter."""

    __slots__ = ("begin", "end", "first", "first_end", "last", "last_start", "text")

    def __init__(self, text: NormalizedText, begin: int, end: int) -> None:
        self.text, self.begin, self.end = text, begin, end
        places = text.places
        self.first, self.first_end = places[begin], places[begin + 1]
        self.last_start, self.last = places[end - 1], places[end]

    def has(self, runs: tuple[int, ...]) -> bool:
        """Whether every run of one letter is at least as long as in the term."""
        places = self.text.places
        return all(
            least == 1 or places[at + 1] - places[at] >= least
            for at, least in enumerate(runs, start=self.begin)
        )


def _word_match(text: NormalizedText, span: _Span, pattern: _Pattern) -> TermMatch | None:
    """The match as whole words, the fewest possible; None if it is not whole words."""
    runs, begin, end = pattern.runs, span.first, span.last
    if pattern.is_open_before:
        first = bisect_right(text.starts, begin) - 1
    else:
        first = bisect_right(text.starts, span.first_end - runs[0]) - 1
        if first < 0 or text.starts[first] < begin:
            return None
        begin = text.starts[first]
    if pattern.is_open_after:
        last = bisect_left(text.ends, end)
    else:
        last = bisect_left(text.ends, max(span.last_start + runs[-1], begin + sum(runs)))
        if last == len(text.ends) or text.ends[last] > end:
            return None
        end = text.ends[last]
    if begin > span.first_end - runs[0] or end < span.last_start + runs[-1] or not span.has(runs):
        return None
    if end - begin < sum(runs) or not _reads_as_term(text, pattern, begin, end, first, last):
        return None
    lengths = tuple(text.ends[at] - text.starts[at] for at in range(first, last + 1))
    is_literal = lengths == pattern.words and text.raw[begin:end].isalpha()
    return TermMatch(pattern.term, pattern.part, first, last, is_literal)


def _reads_as_term(
    text: NormalizedText, pattern: _Pattern, begin: int, end: int, first: int, last: int
) -> bool:
    """Whether these tokens, with the gaps between them, form this term."""
    if not pattern.has_digits and not any(map(str.isalpha, text.raw[begin:end])):
        return False  # a number is not a word
    if pattern.is_tag and not (text.ends_tag(first) and text.ends_tag(last + 1)):
        return False
    if first == last:
        return True
    tokens = range(first, last + 1)
    if all(text.ends[token] - text.starts[token] == 1 for token in tokens):
        return True  # spelled out, with anything between the letters
    gaps = [text.gap(token) for token in tokens[1:]]
    if Gap.TAG in gaps:
        return False
    return pattern.has_digits or not _has_number(text, first, gaps)


def _has_number(text: NormalizedText, first: int, gaps: Sequence[Gap]) -> bool:
    """Whether a token from `first` on is a number that touches no other token."""
    for token, sides in enumerate(pairwise([Gap.TAG, *gaps, Gap.TAG]), start=first):
        letters = text.raw[text.starts[token] : text.ends[token]]
        if Gap.NONE not in sides and not any(map(str.isalpha, letters)):
            return True
    return False


# -- words glued together ----------------------------------------------------------------------


class _Piece(NamedTuple):
    """A pattern that may be a part of a token."""

    span: _Span
    pattern: _Pattern


def _glued(text: NormalizedText, by_token: dict[int, list[_Piece]]) -> Iterator[TermMatch]:
    """The terms in tokens that consist only of terms and fillers."""
    for token, pieces in by_token.items():
        start, end = text.starts[token], text.ends[token]
        if not (
            any(piece.span.first <= start for piece in pieces)
            and any(piece.span.last >= end for piece in pieces)
        ):
            continue
        fitting = [piece for piece in pieces if _fits(piece, start, end)]
        fitting.sort(key=lambda piece: (piece.span.begin, piece.span.end))
        for piece in _in_chain(fitting, start, end):
            yield TermMatch(piece.pattern.term, 0, token, token, is_literal=False)


def _fits(piece: _Piece, start: int, end: int) -> bool:
    """Whether a piece lies within its token and has letters."""
    span, runs = piece.span, piece.pattern.runs
    if span.first_end - runs[0] < start or span.last_start + runs[-1] > end:
        return False
    return span.has(runs) and any(map(str.isalpha, span.text.raw[span.first : span.last]))


def _in_chain(pieces: list[_Piece], start: int, end: int) -> Iterator[_Piece]:
    """The pieces in a chain from the start of a token to its end."""
    at: dict[int, list[int]] = defaultdict(list)
    is_reached = [False] * len(pieces)
    for number, piece in enumerate(pieces):
        span = piece.span
        is_reached[number] = span.first <= start or any(
            _follows(pieces[before], piece)
            for place in (span.begin, span.begin + 1)
            for before in at[place]
        )
        if is_reached[number]:
            at[span.end].append(number)
    at.clear()
    for number in reversed(range(len(pieces))):
        span = pieces[number].span
        if is_reached[number] and (
            span.last >= end
            or any(
                _follows(pieces[number], pieces[after])
                for place in (span.end, span.end - 1)
                for after in at[place]
            )
        ):
            at[span.begin].append(number)
            yield pieces[number]


def _follows(one: _Piece, other: _Piece) -> bool:
    """Whether a piece continues where another ends; they may share a run that is long enough."""
    if one.span.end == other.span.begin:
        return True
    run = one.span.last - one.span.last_start
    return one.span.end - 1 == other.span.begin and run >= (
        one.pattern.runs[-1] + other.pattern.runs[0]
    )


# -- ways to write a term ----------------------------------------------------------------------


def _patterns(number: int, term: str) -> Iterator[tuple[str, _Pattern]]:
    """Every way to write a term, as squeezed letters.

    Raises:
        PolicyError: the term could not match anything.
    """
    stripped = term.removeprefix("=").strip()
    if len(stripped) > _MAX_TERM_CHARS:
        raise PolicyError(f"the term {term[:20]!r}… is longer than {_MAX_TERM_CHARS} characters")
    parts = stripped.split(_ELLIPSIS)
    for part, words in enumerate(parts):
        bare = words.strip("* ")
        if "*" in bare or "..." in bare:
            raise PolicyError(
                f"the term {term!r} has a * or dots in the wrong place: a * belongs at the "
                "start or end of a word, three dots between spaces"
            )
        tokens = fold_tokens(fold(bare.lower()))
        letters = "".join(tokens)
        if len(letters) < 2 and not _needs_no_spaces(letters):
            raise PolicyError(f"the term {term!r} needs at least two letters")
        base = _Pattern(
            term=number,
            part=part,
            words=tuple(map(len, tokens)),
            runs=(),
            is_open_before=_needs_no_spaces(letters[:1]) or words.startswith("*"),
            is_open_after=_needs_no_spaces(letters[-1:]) or words.endswith("*"),
            is_tag=term.startswith("="),
            has_digits=not letters.isalpha(),
            is_glued=False,
        )
        is_alone = len(parts) == 1 and base.is_whole and not base.is_tag
        base = replace(base, is_glued=is_alone and _is_word(tokens))
        for written in {letters, *_plurals(tokens, base), *_masked(tokens, base)}:
            squeezed, runs = squeeze_runs(written)
            yield squeezed, replace(base, runs=runs)


def _needs_no_spaces(letter: str) -> bool:
    """Whether the script of a letter writes words without spaces."""
    return len(letter) > 0 and unicodedata.category(letter[0]) == "Lo"


def _is_word(tokens: Sequence[str]) -> bool:
    return len(tokens) == 1 and len(tokens[0]) >= _MIN_WORD_LETTERS and tokens[0].isalpha()


def _plurals(tokens: Sequence[str], base: _Pattern) -> Iterator[str]:
    if base.is_whole and tokens[-1].isalpha() and len(tokens[-1]) >= _MIN_WORD_LETTERS:
        letters = "".join(tokens)
        yield from (
            letters + ending for ending in ("s", "z", *_PLURAL_ENDINGS.get(letters[-1], ()))
        )
        if letters[-1] == "y":
            yield letters[:-1] + "ies"


def _masked(tokens: Sequence[str], base: _Pattern) -> Iterator[str]:
    """The word with a star in place of an inner letter."""
    if _is_word(tokens) and not base.is_open_before and not base.is_tag:
        word = tokens[0]
        yield from (f"{word[:at]}*{word[at + 1 :]}" for at in range(1, len(word) - 1))
