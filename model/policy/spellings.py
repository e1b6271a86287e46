"""Every way to write a list of terms, most of them in one automaton."""

from array import array
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import lru_cache
from itertools import chain, groupby
from operator import ge, itemgetter
from typing import Any, Literal, TypedDict

from ahocorasick_rs import AhoCorasick

from model.policy.kept import kept
from model.policy.normalize import NormalizedText, squeeze_runs
from model.policy.patterns import Pattern, TermPart, parts_of

Match = tuple[int, int, int]
"""The number of a spelling, and its begin and end in squeezed letters."""

FILLER, CHAINED = -1, -2
"""Stand for the term of a word that may be glued to a term, and of a part of longer terms."""

_MIN_KEPT_TERMS = 1000
"""Minimum number of terms whose spellings are kept in a file; those of fewer take milliseconds."""

_BYTES = 256
_MAX_CHOICES = 16
"""Maximum number of sets of groups whose spellings are kept: 170 kB each."""

_NO_GROUPS: frozenset[int] = frozenset()


class _Table(TypedDict):
    """What is found out about some terms, as JSON has it.

    `letters` has the spellings, those with the same first letter in one text, and `runs` the last
    ones, which are single letters. The fields of `Spellings` with a number for each spelling or
    part are in base64.
    """

    letters: list[str]
    runs: str
    holed: list[tuple[str, str, int]]
    patterns: list[Any]
    groups: list[list[int]]
    chains: list[tuple[int, list[int]]]
    more: list[tuple[int, int, int]]
    term_of: str
    pattern: str
    part: str
    kinds: str
    before: str
    after: str
    glued: str
    least: str


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
        table = _table(terms, groups, list(fillers))
        self.term_of = array("i", b64decode(table["term_of"]))
        """The term of each part."""
        self.chains = dict(table["chains"])
        """The parts of every term that has several; terms share parts that are equal."""
        self.chained: dict[int, list[int]] = defaultdict(list)
        """The terms that begin with a part."""
        for term, (first, *_) in self.chains.items():
            self.chained[first].append(term)
        self.before, self.after = b64decode(table["before"]), b64decode(table["after"])
        self.glued, self.least = b64decode(table["glued"]), b64decode(table["least"])
        self.patterns = [
            Pattern._make([*bounds, tuple((at, least) for at, least in long_runs)])
            for *bounds, long_runs in table["patterns"]
        ]
        self._pattern = array("I", b64decode(table["pattern"]))
        self._part = array("I", b64decode(table["part"]))
        self._more: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """Further patterns and parts of spellings."""
        for spelling, kind, part in table["more"]:
            self._more[spelling].append((kind, part))
        self._groups = list(map(frozenset, table["groups"]))
        kinds = array("I", b64decode(table["kinds"]))
        self._kinds = bytes(kinds.tolist()) if len(self._groups) <= _BYTES else kinds
        self._needed = lru_cache(_MAX_CHOICES)(self._needed_by)
        # All letters in one list would take 10 MB more.
        letters = chain.from_iterable(map(str.split, table["letters"]))
        self._automaton = AhoCorasick(letters) if table["letters"] else None
        first = len(self.least) - len(table["runs"])
        self._runs = {letter: number for number, letter in enumerate(table["runs"], start=first)}
        self._holed: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for beside, after, part in table["holed"]:
            self._holed[beside].append((after, part))

    def matches(self, squeezed: str) -> list[Match]:
        """All spellings in some letters, also those that overlap."""
        if self._automaton is None:
            return []
        return self._automaton.find_matches_as_indexes(squeezed, overlapping=True)

    def runs(self, text: NormalizedText) -> Iterator[Match]:
        """All spellings that are a run of one letter: in squeezed letters each one would be one."""
        for place in text.runs:
            spelling = self._runs.get(text.squeezed[place])
            if spelling is not None and self.least[spelling] <= (
                text.places[place + 1] - text.places[place]
            ):
                yield spelling, place, place + 1

    def holed(self, before: str, after: str) -> list[int]:
        """The parts of terms of which these letters are all but one between them.

        Runs of one letter behind it may be longer.
        """
        squeezed, runs = squeeze_runs(after)
        return [
            part
            for letters, part in self._holed.get(f"{before} {squeezed}", ())
            if all(map(ge, runs, squeeze_runs(letters)[1]))
        ]

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


# -- computing -----------------------------------------------------------------------------------


def _table(
    terms: Sequence[str], groups: Sequence[frozenset[int]], fillers: Sequence[str]
) -> _Table:
    def compute() -> _Table:
        return _Found(terms, groups, fillers).table()

    if len(terms) < _MIN_KEPT_TERMS:
        return compute()
    kinds: dict[frozenset[int], int] = {}
    numbers = [kinds.setdefault(own, len(kinds)) for own in groups]
    return kept("spellings", [terms, numbers, list(map(sorted, kinds)), fillers], compute)


class _Found:
    """The spellings of some terms, in the order in which they are met."""

    def __init__(
        self, terms: Sequence[str], groups: Sequence[frozenset[int]], fillers: Sequence[str]
    ) -> None:
        self._term_of: list[int] = []
        self._chains: dict[int, list[int]] = {}
        self._before, self._after, self._glued = bytearray(), bytearray(), bytearray()
        self._least = bytearray()
        self._pattern, self._part = array("I"), array("I")
        self._more: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._groups: list[frozenset[int]] = []
        self._holed: list[tuple[str, str, int]] = []
        self._numbers: dict[str, int] = {}
        self._patterns: dict[Pattern, int] = {}
        for number, (part, own) in enumerate(self._numbered(terms, groups, fillers)):
            if self._term_of[number] != FILLER:
                self._holed += [
                    (f"{before} {squeeze_runs(after)[0]}", after, number)
                    for before, after in part.holed()
                ]
            for squeezed, pattern in part.spellings():
                spelling = self._numbers.setdefault(squeezed, len(self._numbers))
                kind = self._patterns.setdefault(pattern, len(self._patterns))
                if spelling == len(self._groups):
                    self._pattern.append(kind)
                    self._part.append(number)
                    self._before.append(pattern.is_open_before)
                    self._after.append(pattern.is_open_after)
                    self._glued.append(pattern.is_glued)
                    self._least.append(min(pattern.letters, 255))
                    self._groups.append(own)
                elif number != self._part[spelling] or kind != self._pattern[spelling]:
                    self._more[spelling].add((kind, number))
                    self._before[spelling] |= pattern.is_open_before
                    self._after[spelling] |= pattern.is_open_after
                    self._glued[spelling] |= pattern.is_glued
                    self._least[spelling] = min(self._least[spelling], pattern.letters)
                    if not own <= self._groups[spelling]:
                        self._groups[spelling] |= own

    def _numbered(
        self, terms: Sequence[str], groups: Sequence[frozenset[int]], fillers: Sequence[str]
    ) -> Iterator[tuple[TermPart, frozenset[int]]]:
        """The parts of all terms, and the groups of each; those of longer terms come last."""
        shared: dict[TermPart, frozenset[int]] = {}
        chained: dict[int, list[TermPart]] = {}
        for term, text in chain(enumerate(terms), ((FILLER, filler) for filler in fillers)):
            own = _NO_GROUPS if term == FILLER else groups[term]
            parts = parts_of(text)
            if len(parts) == 1:
                self._term_of.append(term)
                yield parts[0], own
            else:
                chained[term] = parts
                shared.update({part: own | shared.get(part, _NO_GROUPS) for part in parts})
        numbers = {part: number for number, part in enumerate(shared, start=len(self._term_of))}
        self._chains = {term: [numbers[part] for part in chained[term]] for term in chained}
        self._term_of.extend([CHAINED] * len(shared))
        yield from shared.items()

    def table(self) -> _Table:
        """All that was found, with the spellings sorted: so they are made an automaton faster."""
        runs = sorted(filter(self._is_run, self._numbers))
        letters = sorted(self._numbers.keys() - set(runs))
        order = [self._numbers[one] for one in [*letters, *runs]]
        groups: dict[frozenset[int], int] = {}
        kinds = [groups.setdefault(self._groups[one], len(groups)) for one in order]
        return {
            "letters": [" ".join(alike) for _, alike in groupby(letters, itemgetter(0))],
            "runs": "".join(runs),
            "holed": self._holed,
            "patterns": list(self._patterns),
            "groups": list(map(sorted, groups)),
            "chains": list(self._chains.items()),
            "more": [
                (spelling, kind, part)
                for spelling, one in enumerate(order)
                if one in self._more
                # Sorted, so that equal patterns are next to each other.
                for kind, part in sorted(self._more[one])
            ],
            "term_of": _text("i", self._term_of),
            "pattern": _text("I", map(self._pattern.__getitem__, order)),
            "part": _text("I", map(self._part.__getitem__, order)),
            "kinds": _text("I", kinds),
            "before": _text("B", map(self._before.__getitem__, order)),
            "after": _text("B", map(self._after.__getitem__, order)),
            "glued": _text("B", map(self._glued.__getitem__, order)),
            "least": _text("B", map(self._least.__getitem__, order)),
        }

    def _is_run(self, letters: str) -> bool:
        """Whether a spelling is a run of one letter, which no word is glued to."""
        spelling = self._numbers[letters]
        return len(letters) == 1 and self._least[spelling] > 1 and not self._glued[spelling]


def _text(code: Literal["B", "I", "i"], numbers: Iterable[int]) -> str:
    return b64encode(array(code, numbers)).decode()
