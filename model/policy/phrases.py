"""Finds phrases in a text letter for letter: the exceptions of the policy."""

from collections import defaultdict
from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick

from model.errors import PolicyError
from model.policy.normalize import Gap, NormalizedText, plain_words

_BREAKS = frozenset(gap.value for gap in Gap if gap >= Gap.NUMBER)
"""Gaps that are a number or the end of a tag."""


class PhraseMatcher:
    """Searches for a fixed list of phrases, letter for letter, neither split nor joined."""

    def __init__(self, phrases: Sequence[str]) -> None:
        """Compile the phrases.

        Raises:
            PolicyError: a phrase has no letters.
        """
        self._words = [plain_words(phrase) for phrase in phrases]
        for phrase, words in zip(phrases, self._words, strict=True):
            if not words:
                raise PolicyError(f"the exception {phrase!r} has no letters")
        self.lengths = list(map(len, self._words))
        """The number of words of each phrase."""
        self._automaton = AhoCorasick(map("".join, self._words))

    def find(self, text: NormalizedText) -> dict[int, list[int]]:
        """The phrases in a text, by their numbers: the first token of each place."""
        found: dict[int, list[int]] = defaultdict(list)
        matches = self._automaton.find_matches_as_indexes(text.raw, overlapping=True)
        if matches:
            tokens, gaps, starts, touched = text.tokens, text.gaps, text.starts, text.touched
            for phrase, begin, end in matches:
                first, last = touched[begin + 1], touched[end]
                if (
                    starts[first] == begin
                    and tokens[first : last + 1] == self._words[phrase]
                    and (first == last or _BREAKS.isdisjoint(gaps[first + 1 : last + 1]))
                ):
                    found[phrase].append(first)
        return found
