"""Splits words into terms that are written without a gap between them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from model.policy.patterns import Pattern

MIN_GLUED_LETTERS = 6
"""Minimum letters of a word that consists of several terms."""


class Piece(NamedTuple):
    """A pattern that may be a part of a word, at these squeezed letters, and what it is part of."""

    begin: int
    end: int
    pattern: Pattern
    part: int


class GluedWords(NamedTuple):
    """Words in lines. `places` has the offset of every squeezed letter; `bounds` the words' own.

    A place is where the run of the letter begins; the last one is the end.
    """

    letters: str
    places: list[int]
    bounds: dict[int, int]

    def chained(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The pieces of chains from the start of a word to its end."""
        kept = []
        reached: dict[int, int] = {}
        """Where chains from the start of a word end; how much of its last letter they need."""
        for piece in sorted(pieces):
            begin, end, pattern, _ = piece
            if self._fits(piece) and (
                begin in self.bounds
                or begin in reached
                or self._is_shared(begin, pattern.first_run, reached.get(begin + 1))
            ):
                kept.append(piece)
                reached[end] = min(pattern.last_run, reached.get(end, pattern.last_run))
        ends = set(self.bounds.values())
        wanted: dict[int, int] = {}
        """Where chains to the end of a word start; how much of its first letter they need."""
        for piece in sorted(kept, key=_end, reverse=True):
            begin, end, pattern, _ = piece
            if (
                end in ends
                or end in wanted
                or self._is_shared(end - 1, pattern.last_run, wanted.get(end - 1))
            ):
                wanted[begin] = min(pattern.first_run, wanted.get(begin, pattern.first_run))
                yield piece

    def _fits(self, piece: Piece) -> bool:
        """Whether every run of one letter is as long as in the term, and there are letters."""
        begin, places = piece.begin, self.places
        for at, least in piece.pattern.long_runs:
            if places[begin + at + 1] - places[begin + at] < least:
                return False
        return any(map(str.isalpha, self.letters[places[begin] : places[piece.end]]))

    def _is_shared(self, place: int, one: int, other: int | None) -> bool:
        """Whether two pieces may share the run at a place: how much of it each needs."""
        if other is None:
            return False
        return self.places[place + 1] - self.places[place] >= one + other


def _end(piece: Piece) -> tuple[int, int]:
    return piece.end, piece.begin
