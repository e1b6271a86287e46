"""Checks the final prompts and LoRAs of a request against the policy rules.

Words such as "not", a claim to be adult or a negative weight make no exception.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from model.errors import PolicyBlocked, PolicyError
from model.policy.lora_names import lora_words
from model.policy.matcher import TermMatcher
from model.policy.normalize import NormalizedText, readings
from model.policy.phrases import PhraseMatcher
from model.policy.rules import MAX_RATING, Clause, CoreFile, load_core, load_rules, merge_rules
from model.prompt_grammar import parse_prompt
from model.rating import RATINGS, Rating

_PromptKind = Literal["prompt", "negative"]
_Clause = Mapping[_PromptKind, set[int]]
"""The groups of a clause by the prompt that they are looked for in."""


class WeightedLora(Protocol):
    """A LoRA of a request."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """An allowed request: the rating that its words ask for and the highest one it may have."""

    requested: Rating
    limit: Rating


class RequestTexts(NamedTuple):
    """The texts of a request: `prompt` adds to the picture, `negative` removes from it."""

    prompt: str
    negative: str


class Policy:
    """The core rules and those of one rule file. Thread-safe."""

    def __init__(self, rules: CoreFile) -> None:
        """Compile the rules.

        Raises:
            PolicyError: a term could not match anything.
        """
        groups = _Groups()
        for name, group in rules.groups.items():
            groups.add(f"${name}", group.all_terms, group.all_exceptions)
        self._rules = [
            (rule, [groups.compile_clause(clause, rule.exceptions) for clause in rule.clauses])
            for rule in rules.rules
        ]
        self._ratings = [
            (rating, groups.compile_clause(rules.ratings[rating], ()))
            for rating in reversed(RATINGS)
            if rating in rules.ratings
        ]
        self._safe = groups.compile_clause(rules.safe, ())
        self._matcher = TermMatcher(list(groups.of_term), rules.fillers)
        self._groups_by_term = list(groups.of_term.values())
        self._exceptions = PhraseMatcher(list(groups.of_exception))
        self._groups_by_exception = list(groups.of_exception.values())

    def check(
        self,
        prompt: str,
        negative_prompt: str = "",
        *,
        ceiling: Rating,
        loras: Sequence[WeightedLora] = (),
        trigger_words: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> PolicyDecision:
        """Check the final prompts; `trigger_words` has those of each LoRA by name.

        Raises:
            PolicyBlocked: a rule applies, or the words ask for a higher rating than `ceiling`.
            PromptError: the weights or brackets of a prompt are invalid.
        """
        texts = collect_texts(prompt, negative_prompt, loras, trigger_words)
        found: dict[_PromptKind, set[int]] = {
            "prompt": self._find_groups(texts.prompt),
            "negative": self._find_groups(texts.negative),
        }
        for rule, clauses in self._rules:
            if all(_is_met(clause, found) for clause in clauses):
                raise PolicyBlocked(rule.name, rule.reason)
        requested: Rating = next(
            (rating for rating, clause in self._ratings if _is_met(clause, found)), "safe"
        )
        if RATINGS.index(requested) > RATINGS.index(ceiling):
            raise PolicyBlocked(
                MAX_RATING, f"it asks for {requested}; the highest allowed rating is {ceiling}"
            )
        return PolicyDecision(requested, "safe" if _is_met(self._safe, found) else ceiling)

    def _find_groups(self, text: str) -> set[int]:
        """The groups that have a term in the text."""
        found: set[int] = set()

        def is_settled(term: int) -> bool:
            return self._groups_by_term[term] <= found

        for reading in readings(text):
            covered: dict[int, set[int]] | None = None
            for term, first, last in self._matcher.find(reading, is_settled):
                if covered is None:
                    covered = self._covered(reading)
                for group in self._groups_by_term[term]:
                    tokens = covered.get(group, ())
                    if first not in tokens or last not in tokens:
                        found.add(group)
        return found

    def _covered(self, reading: NormalizedText) -> dict[int, set[int]]:
        """The tokens that belong to an exception, by the group of the exception."""
        covered: dict[int, set[int]] = defaultdict(set)
        for phrase, tokens in self._exceptions.find(reading):
            for group in self._groups_by_exception[phrase]:
                covered[group].update(tokens)
        return covered


def load_policy(path: Path | None = None) -> Policy:
    """Load the policy of a rule file; None means the default file of the package.

    Raises:
        PolicyError: the file is invalid; the message says where and why.
    """
    return _default_policy() if path is None else _read_policy(path)


@cache  # compiling takes about a second; a policy never changes
def _default_policy() -> Policy:
    return _read_policy(None)


def _read_policy(path: Path | None) -> Policy:
    try:
        return Policy(merge_rules(load_core(), load_rules(path)))
    except PolicyError as exc:
        if path is None or str(path) in str(exc):
            raise
        raise PolicyError(f"policy file {path}: {exc}") from exc


def collect_texts(
    prompt: str,
    negative_prompt: str,
    loras: Sequence[WeightedLora] = (),
    trigger_words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> RequestTexts:
    """Collect the words that affect the picture.

    A part of the prompt with a weight of 0 or less counts for both prompts, and such a part of
    the negative prompt counts for the prompt, so the sign of a weight hides nothing.
    """
    prompt_segments, negative_segments = parse_prompt(prompt), parse_prompt(negative_prompt)
    added = [
        "".join(segment.text for segment in prompt_segments),
        _only(negative_segments, is_negative=True),
    ]
    removed = [
        _only(negative_segments, is_negative=False),
        _only(prompt_segments, is_negative=True),
    ]
    for lora in loras:
        words = [lora.name, *trigger_words.get(lora.name, ())]
        names = ", ".join([*words, *map(lora_words, words)])
        added.append(names)
        if lora.weight < 0:
            removed.append(names)
    return RequestTexts(", ".join(added), ", ".join(removed))


def _only(segments: Sequence[tuple[str, float]], *, is_negative: bool) -> str:
    """Keep the segments with a weight of 0 or less, or the others; commas replace the rest."""
    return "".join(text if (weight <= 0) is is_negative else ", " for text, weight in segments)


def _is_met(clause: _Clause, found: Mapping[_PromptKind, set[int]]) -> bool:
    return any(clause[side] & found[side] for side in clause)


class _Groups:
    """Numbers the groups of terms; equal sets of groups are one object, so that they are small."""

    def __init__(self) -> None:
        self.of_term: dict[str, frozenset[int]] = {}
        self.of_exception: dict[str, frozenset[int]] = {}
        self._numbers: dict[str, int] = {}
        self._sets: dict[frozenset[int], frozenset[int]] = {}

    def add(self, name: str, terms: Iterable[str], exceptions: Iterable[str]) -> int:
        """Add a group; returns its number."""
        number = self._numbers[name] = len(self._numbers)
        for written, groups in ((terms, self.of_term), (exceptions, self.of_exception)):
            for term in written:
                joined = groups.get(term, frozenset()) | {number}
                groups[term] = self._sets.setdefault(joined, joined)
        return number

    def compile_clause(self, clause: Clause, exceptions: Sequence[str]) -> _Clause:
        """The groups of a clause; its own terms become another group."""
        sides: dict[_PromptKind, list[str]] = {"prompt": clause.prompt, "negative": clause.negative}
        found: dict[_PromptKind, set[int]] = {}
        for side, terms in sides.items():
            found[side] = {self._numbers[term] for term in terms if term.startswith("$")}
            own = [term for term in terms if not term.startswith("$")]
            if own:
                found[side].add(self.add(f"{len(self._numbers)}", own, exceptions))
        return found
