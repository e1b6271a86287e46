"""Finds terms in a text regardless of how they are written.

An Aho-Corasick automaton searches the letters of the text without gaps. A match counts if it
starts and ends at word boundaries. This finds words that were split, but not parts of words.
The work for each match of the automaton is constant, so the time grows with the text only.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import NamedTuple

from model.policy.glued import MIN_GLUED_LETTERS, GluedWords, KnownWords, Piece
from model.policy.normalize import OUTER, NormalizedText, squeeze
from model.policy.patterns import Pattern, is_number, tokens_of
from model.policy.spellings import CHAINED, FILLER, Match, Spellings

_MAX_WORDS_BETWEEN = 2
"""Maximum number of words in place of the three dots of a term."""

_MIN_COMPOUND_LETTERS = 7
"""Minimum letters of a filler that may consist of terms."""


class TermMatch(NamedTuple):
    """A term, and the first and the last token of each place where it was found."""

    term: int
    firsts: list[int]
    lasts: list[int]


_Hit = tuple[int, int, int]
"""A part of a term, and its first and last token, counted from the first that a match touches."""

_Context = str | tuple[object, ...]
"""All that decides what a match is: its letters with the gaps between and around them.

If its word goes on there, as it may, its spelling, whether it starts and ends there, and whether
the first or the last token that it touches is a number decide, too.
"""


class TermMatcher:
    """Searches for a fixed list of terms; a match gives the index of its term.

    A term belongs to groups, by default to one of its own, numbered like the term. `fillers` are
    words that may be glued to a term.
    """

    def __init__(
        self,
        terms: Sequence[str],
        fillers: Iterable[str] = (),
        groups: Sequence[frozenset[int]] | None = None,
    ) -> None:
        """Compile the terms; `groups` has the groups of each.

        Raises:
            PolicyError: a term could not match anything.
        """
        self._groups = groups or [frozenset([term]) for term in range(len(terms))]
        self._spellings = Spellings(terms, self._groups, fillers)
        self._known_words = KnownWords(), KnownWords()
        """The words that were searched for glued terms; the second if digits are numbers."""

    def search(self, needed: Set[int] | None = None) -> "TermSearch":
        """Begin a search in the readings of one text for the terms of groups that are needed.

        The set may shrink during the search. None means all.
        """
        if needed is None:
            needed = frozenset().union(*self._groups)
        return TermSearch(self._spellings, self._known_words, self._groups, needed)


class TermSearch:
    """Finds terms in the readings of one text, and remembers what it has judged.

    Readings of a text are much alike, so most matches are like one before: the same letters with
    the same gaps and neighbours.
    """

    def __init__(
        self,
        spellings: Spellings,
        known_words: tuple[KnownWords, KnownWords],
        groups: Sequence[frozenset[int]],
        needed: Set[int],
    ) -> None:
        self._spellings, self._groups, self._needed = spellings, groups, needed
        self._judged: tuple[dict[_Context, list[_Hit]], dict[_Context, list[_Hit]]] = {}, {}
        """What matches are by their context; the second if digits are read as numbers."""
        self._known_words = known_words

    def find(self, text: NormalizedText) -> Iterator[TermMatch]:
        """The terms in a reading, except those whose groups are not needed when reached."""
        matches = self._spellings.matches(text.squeezed)
        matches += self._spellings.runs(text)
        if matches or text.holed:
            yield from self._at_bounds(text, self._by_context(text, matches))
            yield from self._in_glued_words(text)

    def _at_bounds(
        self, text: NormalizedText, found: dict[_Context, tuple[Match, list[int]]]
    ) -> Iterator[TermMatch]:
        """The terms that start and end at word boundaries, or may start or end elsewhere."""
        judged = self._judged[text.reads_digits]
        places: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        """The first and the last tokens of each part of a term."""
        for context, (match, tokens) in found.items():
            hits = judged.get(context)
            if hits is None:
                hits = judged[context] = self._judge(text, match, tokens[0])
            for part, from_first, to_last in hits:
                firsts, lasts = places[part]
                firsts += [token + from_first for token in tokens] if from_first else tokens
                lasts += [token + to_last for token in tokens] if to_last else tokens
        for part, ends in self._holed(text):
            firsts, lasts = places[part]
            firsts += [last - 1 for last in ends]
            lasts += ends
        parts: dict[int, dict[int, int]] = {}
        for part, (firsts, lasts) in places.items():
            term = self._spellings.term_of[part]
            if term == CHAINED:
                parts[part] = dict(zip(firsts, lasts, strict=True))
            elif not self._needed.isdisjoint(self._groups[term]):
                yield TermMatch(term, firsts, lasts)
        if parts:
            yield from self._joined(parts)

    def _by_context(
        self, text: NormalizedText, matches: Sequence[Match]
    ) -> dict[_Context, tuple[Match, list[int]]]:
        """The needed matches that start and end at bounds, or may do so elsewhere.

        By context, one of them and the first tokens that they touch.
        """
        spellings = self._spellings
        before, after, least = spellings.before, spellings.after, spellings.least
        is_needed = self._spellings.needed(self._needed)
        written, places, (begins, stops) = text.written, text.places, text.bounds
        is_start, touched = text.is_start, text.touched
        found: dict[_Context, tuple[Match, list[int]]] = {}
        for match in matches:
            spelling, begin, end = match
            if (
                (begins[begin] or before[spelling])
                and (stops[end] or after[spelling])
                and is_needed[spelling]
                and places[end] - places[begin] >= least[spelling]
            ):
                at, stop = places[begin], places[end]
                first, last = touched[at + 1], touched[stop]
                goes_on = not (is_start[at] and is_start[stop])
                if goes_on and (before[spelling] or after[spelling]):
                    context = _open_context(text, spelling, at, stop, first, last)
                else:
                    context = written[at + 3 * first + 2 : stop + 3 * last + 4]
                if alike := found.get(context):
                    alike[1].append(first)
                else:
                    found[context] = match, [first]
        return found

    def _judge(self, text: NormalizedText, match: Match, first: int) -> list[_Hit]:
        """The parts of terms that a match is; `first` is the first token that it touches."""
        spelling, begin, end = match
        starts, ends = text.bounds[0][begin], text.bounds[1][end]
        hits: list[_Hit] = []
        judged, tokens = -1, None
        for kind, part in self._spellings.ways(spelling):
            if kind != judged:
                judged, pattern = kind, self._spellings.patterns[kind]
                may_start = starts or pattern.is_open_before
                fits = may_start and (ends or pattern.is_open_after) and not pattern.is_only_glued
                tokens = tokens_of(text, begin, end, pattern) if fits else None
            if tokens and self._spellings.term_of[part] != FILLER:
                hits.append((part, tokens[0] - first, tokens[1] - first))
        return hits

    def _holed(self, text: NormalizedText) -> Iterator[tuple[int, list[int]]]:
        """Parts of terms of which a sign covers a letter, and the tokens behind it."""
        for (before, after), ends in text.holed.items():
            if any(map(str.isalpha, before + after)):
                for part in self._spellings.holed(text.read(before), text.read(after)):
                    yield part, ends

    def _joined(self, parts: dict[int, dict[int, int]]) -> Iterator[TermMatch]:
        """Matches of terms with several parts, with at most a few words between the parts."""
        begun = {term for part in parts for term in self._spellings.chained.get(part, ())}
        for term in sorted(begun):
            numbers = self._spellings.chains[term]
            if all(map(parts.get, numbers)) and not self._needed.isdisjoint(self._groups[term]):
                ends = {first: {last} for first, last in parts[numbers[0]].items()}
                for number in numbers[1:]:
                    ends = _continued(ends, parts[number])
                if ends:
                    yield TermMatch(term, list(ends), list(map(max, ends.values())))

    def _in_glued_words(self, text: NormalizedText) -> Iterator[TermMatch]:
        """The terms in tokens that consist only of terms and fillers, but are not terms."""
        words = {token for token in set(text.tokens) if len(token) >= MIN_GLUED_LETTERS}
        known = self._known_words[text.reads_digits]
        found = {word: terms for word in words if (terms := known.get(word)) is not None}
        new = [word for word in words if word not in found]
        if new:
            glued = self._terms_glued(new, text.read)
            added = {word: frozenset(glued.get(word, ())) for word in new}
            found.update(added)
            known.add(added)
        found = {word: terms for word, terms in found.items() if terms}
        if not found:
            return
        places: dict[int, list[int]] = defaultdict(list)
        for place in [place for place, token in enumerate(text.tokens) if token in found]:
            for term in found[text.tokens[place]]:
                places[term].append(place)
        for term, tokens in places.items():
            if not self._needed.isdisjoint(self._groups[term]):
                yield TermMatch(term, tokens, tokens)

    def _terms_glued(self, words: Sequence[str], read: Callable[[str], str]) -> dict[str, set[int]]:
        """The terms of those of these words that consist only of terms and fillers."""
        spellings, glued = self._spellings, self._spellings.glued
        letters = "\n".join(words)
        squeezed, places, _ = squeeze(read(letters))
        line_ends = [place for place, letter in enumerate(squeezed) if letter == "\n"]
        starts, ends = [0, *(end + 1 for end in line_ends)], [*line_ends, len(squeezed)]
        matches = spellings.matches(squeezed)
        bounds = self._possible(matches, dict(zip(starts, ends, strict=True)))
        if not bounds:
            return {}
        met = {match[0] for match in matches if glued[match[0]]}
        ways = {spelling: self._glued_ways(spelling) for spelling in met}
        pieces = [
            (begin, end, pattern, terms)
            for spelling, begin, end in matches
            if spelling in ways and starts[bisect_right(starts, begin) - 1] in bounds
            for pattern, terms in ways[spelling]
        ]
        found: dict[str, set[int]] = defaultdict(set)
        chained = list(GluedWords(letters, places, bounds).chained(pieces))
        hidden = _within_compounds(chained)
        for begin, end, _, terms in chained:
            if terms and not (hidden and hidden.get(begin, 0) >= end):
                found[words[bisect_right(starts, begin) - 1]] |= terms
        return found

    def _glued_ways(self, spelling: int) -> list[tuple[Pattern, frozenset[int]]]:
        """The patterns of a spelling that may be glued, and the terms of each."""
        terms: dict[int, set[int]] = defaultdict(set)
        for kind, part in self._spellings.ways(spelling):
            if self._spellings.patterns[kind].is_glued:
                terms[kind].add(self._spellings.term_of[part])
        patterns = self._spellings.patterns
        return [(patterns[kind], frozenset(found - {FILLER})) for kind, found in terms.items()]

    def _possible(self, matches: Sequence[Match], bounds: dict[int, int]) -> dict[int, int]:
        """Those of the words with these bounds that start and end with a word, but are none.

        They may be terms of several words: `nudeminor` also has the word "nude".
        """
        glued = self._spellings.glued
        heads = [match for match in matches if match[1] in bounds]
        first = {match[1] for match in heads if glued[match[0]]}
        first -= {begin for one, begin, end in heads if end == bounds[begin] and glued[one]}
        if not first:
            return {}
        ends = {bounds[begin] for begin in first}
        last = {match[2] for match in matches if match[2] in ends and glued[match[0]]}
        return {begin: bounds[begin] for begin in sorted(first) if bounds[begin] in last}


def _within_compounds(pieces: Iterable[Piece]) -> dict[int, int]:
    """By place, the end of a long filler around it: "young" is no term in `youngadultface`."""
    hidden: dict[int, int] = {}
    for begin, end, *_ in [
        piece for piece in pieces if not piece[3] and piece[1] - piece[0] >= _MIN_COMPOUND_LETTERS
    ]:
        hidden.update({place: max(end, hidden.get(place, 0)) for place in range(begin, end)})
    return hidden


def _continued(ends: dict[int, set[int]], known: dict[int, int]) -> dict[int, set[int]]:
    """Where the next part of a term may end, by the first token of its first part.

    `ends` has the same for the parts before, `known` the last tokens of the next part by its first.
    """
    distances = range(1, _MAX_WORDS_BETWEEN + 2)
    near = {start - distance for start in known for distance in distances}
    continued: dict[int, set[int]] = {}
    for first, reached in ends.items():
        starts = {at + distance for at in reached & near for distance in distances}
        if lasts := {known[start] for start in starts if start in known}:
            continued[first] = lasts
    return continued


def _open_context(
    text: NormalizedText, spelling: int, at: int, stop: int, first: int, last: int
) -> _Context:
    """The context of these letters of some tokens, whose word may go on before or after them."""
    starts, ends = at == text.starts[first], stop == text.ends[last]
    before, after = OUTER[text.gaps[first]], OUTER[text.gaps[last + 1]]
    if first == last:
        return spelling, text.raw[at:stop], starts, ends, before, after
    inner = text.written[at + 3 * first + 3 : stop + 3 * last + 3]
    one, other = is_number(text.tokens[first]), is_number(text.tokens[last])
    return spelling, inner, starts, ends, before, after, one, other
