"""Finds phrases in a text letter for letter: the exceptions of the policy."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from operator import add

from ahocorasick_rs import AhoCorasick

from model.errors import PolicyError
from model.policy.normalize import NormalizedText, plain_words


class PhraseMatcher:
    """Searches for a fixed list of phrases, letter for letter, neither split nor joined."""

    def __init__(self, phrases: Sequence[str]) -> None:
        """Compile the phrases.

        Raises:
            PolicyError: a phrase has no letters.
        """
        written = [plain_words(phrase) for phrase in phrases]
        for phrase, words in zip(phrases, written, strict=True):
            if not words:
                raise PolicyError(f"the exception {phrase!r} has no letters")
        self.lengths = list(map(len, written))
        """The number of words of each phrase."""
        self._automaton = AhoCorasick([f" {' '.join(words)} " for words in written])

    def find(self, text: NormalizedText) -> dict[int, list[int]]:
        """The phrases in a text, by their numbers: the first token of each place."""
        found: dict[int, list[int]] = defaultdict(list)
        matches = self._automaton.find_matches_as_indexes(text.words(), overlapping=True)
        if matches:
            places, breaks = list(map(add, text.starts, count())), text.breaks
            for phrase, begin, _ in matches:
                first = bisect_left(places, begin)
                if breaks[first] == breaks[first + self.lengths[phrase] - 1]:
                    found[phrase].append(first)
        return found
