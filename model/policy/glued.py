"""Splits a word into terms that are written without a gap between them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from model.policy.patterns import Pattern

Part = tuple[int, int]
"""A term, and one of its parts between three dots."""


class Piece(NamedTuple):
    """A pattern that may be a part of a word, at these squeezed letters."""

    pattern: Pattern
    parts: list[Part]
    begin: int
    end: int


class Word(NamedTuple):
    """A word, and where in it the run of each of its squeezed letters begins, and the last ends."""

    letters: str
    places: list[int]

    def chained(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces of chains from the start of the word to its end; `pieces` by their bounds."""
        reached: dict[int, list[Piece]] = defaultdict(list)
        """Fitting pieces that a chain has reached, by where they end."""
        for piece in pieces:
            if self._fits(piece) and (
                piece.begin == 0
                or any(self._follows(before, piece) for before in reached[piece.begin])
                or any(self._follows(before, piece) for before in reached[piece.begin + 1])
            ):
                reached[piece.end].append(piece)
        wanted: dict[int, list[Piece]] = defaultdict(list)
        for piece in sorted(chain.from_iterable(reached.values()), key=_end, reverse=True):
            if (
                piece.end == len(self.places) - 1
                or any(self._follows(piece, after) for after in wanted[piece.end])
                or any(self._follows(piece, after) for after in wanted[piece.end - 1])
            ):
                wanted[piece.begin].append(piece)
                yield piece

    def _fits(self, piece: Piece) -> bool:
        """Whether every run of one letter is as long as in the term, and there are letters."""
        bounds = self.places[piece.begin : piece.end + 1]
        return all(
            end - start >= least
            for start, end, least in zip(bounds, bounds[1:], piece.pattern.runs, strict=False)
        ) and any(map(str.isalpha, self.letters[bounds[0] : bounds[-1]]))

    def _follows(self, one: Piece, other: Piece) -> bool:
        """Whether a piece continues where another ends; they may share a run of one letter."""
        if one.end == other.begin:
            return True
        run = self.places[one.end] - self.places[one.end - 1]
        return one.end - 1 == other.begin and run >= one.pattern.runs[-1] + other.pattern.runs[0]


def _end(piece: Piece) -> tuple[int, int]:
    return piece.end, piece.begin
