"""Splits words into terms that are written without a gap between them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from model.policy.patterns import Pattern

MIN_GLUED_LETTERS = 6
"""Minimum letters of a word that consists of several terms."""

_MAX_KNOWN_WORDS = 8192
_MAX_KNOWN_LETTERS = 40
"""Maximum letters of a word that is remembered."""


class KnownWords:
    """Remembers the terms that words consist of, because prompts share words. Thread-safe."""

    def __init__(self) -> None:
        self._terms: dict[str, frozenset[int]] = {}
        self.get = self._terms.get

    def add(self, words: Mapping[str, frozenset[int]]) -> None:
        """Remember the terms of some words; forgets all others if they are too many."""
        if len(self._terms) >= _MAX_KNOWN_WORDS:
            self._terms.clear()
        self._terms.update(
            {word: terms for word, terms in words.items() if len(word) <= _MAX_KNOWN_LETTERS}
        )


Piece = tuple[int, int, Pattern, frozenset[int]]
"""A pattern that may be a part of a word, at these squeezed letters, and the terms of which it is.

The begin, the end, the pattern and the terms.
"""


class GluedWords:
    """Words, one in each line.

    `places` has where in them the run of each of their squeezed letters begins, and the end;
    `bounds` has the first squeezed letter of each word, and the one after its last.
    """

    def __init__(self, letters: str, places: Sequence[int], bounds: dict[int, int]) -> None:
        self._letters, self._places, self._bounds = letters, places, bounds
        self._has_only_letters = letters.replace("\n", "").isalpha()

    def chained(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces of chains from the start of a word to its end.

        The pieces are ordered by their ends, and those with the same end by their begins.
        """
        kept: list[Piece] = []
        reached: dict[int, int] = {}
        """Where chains from the start of a word end, and how much of the last run they need."""
        for piece in pieces:
            begin, end, pattern, _ = piece
            if (
                begin in reached
                or begin in self._bounds
                or self._is_shared(begin, pattern.first_run, reached.get(begin + 1))
            ) and self._fits(piece):
                kept.append(piece)
                reached[end] = min(pattern.last_run, reached.get(end, pattern.last_run))
        ends = set(self._bounds.values())
        wanted: dict[int, int] = {}
        """Where chains to the end of a word start, and how much of the first run they need."""
        for piece in reversed(kept):
            begin, end, pattern, _ = piece
            if (
                end in wanted
                or end in ends
                or self._is_shared(end - 1, pattern.last_run, wanted.get(end - 1))
            ):
                wanted[begin] = min(pattern.first_run, wanted.get(begin, pattern.first_run))
                yield piece

    def _fits(self, piece: Piece) -> bool:
        """Whether every run of one letter is as long as in the term, and there are letters."""
        begin, end, pattern, _ = piece
        for at, least in pattern.long_runs:
            if self._places[begin + at + 1] - self._places[begin + at] < least:
                return False
        if self._has_only_letters:
            return True
        return any(map(str.isalpha, self._letters[self._places[begin] : self._places[end]]))

    def _is_shared(self, place: int, one: int, other: int | None) -> bool:
        """Whether two pieces may share the run at a place, of which each needs so much."""
        return other is not None and self._places[place + 1] - self._places[place] >= one + other
