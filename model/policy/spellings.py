"""Every way to write a list of terms, in one automaton."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import lru_cache
from itertools import chain

from ahocorasick_rs import AhoCorasick

from model.policy.patterns import Pattern, TermPart, parts_of

Match = tuple[int, int, int]
"""The number of a spelling, and its begin and end in squeezed letters."""

FILLER, CHAINED = -1, -2
"""Stand for the term of a word that may be glued to a term, and of a part of longer terms."""

_BYTES = 256
_MAX_CHOICES = 16
"""Maximum number of sets of groups whose spellings are kept: 170 kB each."""

_NO_GROUPS: frozenset[int] = frozenset()


class Spellings:
    """The squeezed letters of all ways to write some terms, numbered.

    A spelling may be that of several parts of terms, which are numbered as well. By its number,
    `before`, `after` and `glued` say whether one of its patterns is open before, open after or
    glued; `least` is the least number of its letters before they are squeezed.
    """

    def __init__(
        self, terms: Sequence[str], groups: Sequence[frozenset[int]], fillers: Iterable[str]
    ) -> None:
        """Compile the terms; `groups` has the groups of each.

        Raises:
            PolicyError: a term could not match anything.
        """
        self.term_of = array("i")
        """The term of each part."""
        self.chains: dict[int, list[int]] = {}
        """The parts of every term that has several; terms share parts that are equal."""
        self.chained: dict[int, list[int]] = defaultdict(list)
        """The terms that begin with a part."""
        self.before, self.after, self.glued = bytearray(), bytearray(), bytearray()
        self.least = bytearray()
        self._pattern, self._part = array("I"), array("I")
        self._more: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """Further patterns and parts of spellings."""
        numbers: dict[str, int] = {}
        patterns: dict[Pattern, int] = {}
        found_groups: list[frozenset[int]] = []
        for number, (part, own) in enumerate(self._numbered(terms, groups, fillers)):
            for squeezed, pattern in part.spellings():
                spelling = numbers.setdefault(squeezed, len(numbers))
                kind = patterns.setdefault(pattern, len(patterns))
                if spelling == len(found_groups):
                    self._pattern.append(kind)
                    self._part.append(number)
                    self.before.append(pattern.is_open_before)
                    self.after.append(pattern.is_open_after)
                    self.glued.append(pattern.is_glued)
                    self.least.append(min(pattern.letters, 255))
                    found_groups.append(own)
                elif number != self._part[spelling] or kind != self._pattern[spelling]:
                    self._more[spelling].append((kind, number))
                    self.before[spelling] |= pattern.is_open_before
                    self.after[spelling] |= pattern.is_open_after
                    self.glued[spelling] |= pattern.is_glued
                    self.least[spelling] = min(self.least[spelling], pattern.letters)
                    if not own <= found_groups[spelling]:
                        found_groups[spelling] |= own
        for ways in self._more.values():
            ways.sort()  # so that equal patterns are next to each other
        self.patterns = list(patterns)
        kinds: dict[frozenset[int], int] = {}
        numbered = [kinds.setdefault(one, len(kinds)) for one in found_groups]
        self._kinds = bytes(numbered) if len(kinds) <= _BYTES else array("I", numbered)
        self._groups = list(kinds)
        self._needed = lru_cache(_MAX_CHOICES)(self._needed_by)
        self._automaton = AhoCorasick(list(numbers)) if numbers else None

    def _numbered(
        self, terms: Sequence[str], groups: Sequence[frozenset[int]], fillers: Iterable[str]
    ) -> Iterator[tuple[TermPart, frozenset[int]]]:
        """The parts of all terms, and the groups of each; those of longer terms come last."""
        shared: dict[TermPart, frozenset[int]] = {}
        chained: dict[int, list[TermPart]] = {}
        for term, text in chain(enumerate(terms), ((FILLER, filler) for filler in fillers)):
            own = _NO_GROUPS if term == FILLER else groups[term]
            parts = parts_of(text)
            if len(parts) == 1:
                self.term_of.append(term)
                yield parts[0], own
            else:
                chained[term] = parts
                shared.update({part: own | shared.get(part, _NO_GROUPS) for part in parts})
        numbers = {part: number for number, part in enumerate(shared, start=len(self.term_of))}
        self.chains = {term: [numbers[part] for part in chained[term]] for term in chained}
        for term, (first, *_) in self.chains.items():
            self.chained[first].append(term)
        self.term_of.extend([CHAINED] * len(shared))
        yield from shared.items()

    def matches(self, squeezed: str) -> list[Match]:
        """All spellings in some letters, also those that overlap."""
        if self._automaton is None:
            return []
        return self._automaton.find_matches_as_indexes(squeezed, overlapping=True)

    def needed(self, groups: Set[int]) -> bytes:
        """By the number of a spelling, whether any of its terms is in one of some groups."""
        return self._needed(frozenset(groups))

    def _needed_by(self, groups: frozenset[int]) -> bytes:
        is_needed = [not groups.isdisjoint(own) for own in self._groups]
        if isinstance(self._kinds, bytes):  # a hundred times as fast
            return self._kinds.translate(bytes(is_needed).ljust(_BYTES))
        return bytes(map(is_needed.__getitem__, self._kinds))

    def ways(self, spelling: int) -> list[tuple[int, int]]:
        """The patterns of a spelling, by number, and the part of a term that each is one of."""
        first = self._pattern[spelling], self._part[spelling]
        return [first, *self._more.get(spelling, ())]
