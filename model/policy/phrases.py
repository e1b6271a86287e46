"""Finds phrases in a text letter for letter: the exceptions of the policy."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count
from operator import add

from ahocorasick_rs import AhoCorasick

from model.errors import PolicyError
from model.policy.normalize import Gap, NormalizedText, plain_words


class PhraseMatcher:
    """Searches for a fixed list of phrases, letter for letter, neither split nor joined."""

    def __init__(self, phrases: Sequence[str]) -> None:
        """Compile the phrases.

        Raises:
            PolicyError: a phrase has no letters.
        """
        self._words = [plain_words(phrase) for phrase in phrases]
        for phrase, words in zip(phrases, self._words, strict=True):
            if not "".join(words):
                raise PolicyError(f"the exception {phrase!r} has no letters")
        written = [f" {' '.join(words)} " for words in self._words]
        self._automaton = AhoCorasick(written) if written else None

    def find(self, text: NormalizedText) -> Iterator[tuple[int, range]]:
        """The number of each phrase in a text, and its tokens."""
        if self._automaton is None:
            return
        matches = self._automaton.find_matches_as_indexes(text.words(), overlapping=True)
        places = list(map(add, text.starts, count())) if matches else []
        for number, begin, _ in matches:
            first = bisect_left(places, begin)
            tokens = range(first, first + len(self._words[number]))
            if all(text.gap(token) < Gap.NUMBER for token in tokens[1:]):
                yield number, tokens
