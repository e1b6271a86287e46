"""Checks the final prompts and LoRAs of a request against the policy rules.

Words such as "not", a claim to be adult or a negative weight make no exception.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from model.errors import PolicyBlocked, PolicyError
from model.policy.folding import in_all_cases
from model.policy.lora_names import lora_words
from model.policy.matcher import TermMatcher
from model.policy.normalize import NormalizedText, readings
from model.policy.phrases import PhraseMatcher
from model.policy.rules import MAX_RATING, Clause, CoreFile, load_core, load_rules, merge_rules
from model.prompt_grammar import parse_prompt
from model.rating import RATINGS, Rating

_PromptKind = Literal["prompt", "negative"]
_KINDS: tuple[_PromptKind, _PromptKind] = ("prompt", "negative")
_MAX_CHOICES = 256
"""Maximum number of sets of found groups whose needed groups are kept."""

_Clause = Mapping[_PromptKind, set[int]]
"""The groups of a clause by the prompt that they are looked for in."""

_Found = Mapping[_PromptKind, set[int]]
"""The groups that were found, by the prompt."""


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
        self._groups_by_term = list(groups.of_term.values())
        self._matcher = TermMatcher(list(groups.of_term), rules.fillers, self._groups_by_term)
        self._exceptions = PhraseMatcher(list(groups.of_exception))
        self._groups_by_exception = list(groups.of_exception.values())
        self._needed_after = lru_cache(_MAX_CHOICES)(self._needed)

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
        found: _Found = {"prompt": set(), "negative": set()}
        for kind, text in zip(_KINDS, texts, strict=True):
            self._find_groups(text, found[kind], partial(self._needed_now, kind, found))
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

    def _needed_now(self, kind: _PromptKind, found: _Found) -> Set[int]:
        """The groups that may still change the decision if they are found in a prompt."""
        return self._needed_after(kind, frozenset(found["prompt"]), frozenset(found["negative"]))

    def _needed(
        self, kind: _PromptKind, in_prompt: frozenset[int], in_negative: frozenset[int]
    ) -> Set[int]:
        found: Mapping[_PromptKind, Set[int]] = {"prompt": in_prompt, "negative": in_negative}
        needed: set[int] = set()
        for _, clauses in self._rules:
            unmet = [clause for clause in clauses if not _is_met(clause, found)]
            if not unmet:
                return needed
            needed.update(*(clause[kind] for clause in unmet))
        for _, clause in self._ratings:
            if _is_met(clause, found):
                break
            needed |= clause[kind]
        return needed if _is_met(self._safe, found) else needed | self._safe[kind]

    def _find_groups(self, text: str, found: set[int], needed: Callable[[], Set[int]]) -> None:
        """Add the groups that have a term in the text and are needed when it is reached."""
        wanted = set(needed())
        search = self._matcher.search(wanted)
        for reading in readings(text) if wanted else ():
            covered: _Covered | None = None
            for term, firsts, lasts in search.find(reading):
                if covered is None:
                    covered = self._covered(reading)
                new = {
                    group
                    for group in self._groups_by_term[term] & wanted
                    if not (covered[group].issuperset(firsts) and covered[group].issuperset(lasts))
                }
                if new:
                    found |= new
                    wanted &= needed()
            if not wanted:
                return

    def _covered(self, reading: NormalizedText) -> "_Covered":
        """The tokens that belong to an exception, by the group of the exception."""
        tokens: dict[frozenset[int], set[int]] = defaultdict(set)
        for phrase, firsts in self._exceptions.find(reading).items():
            covered = tokens[self._groups_by_exception[phrase]]
            covered.update(firsts)
            for further in range(1, self._exceptions.lengths[phrase]):
                covered.update(map(further.__add__, firsts))
        return _Covered(tokens)


class _Covered(dict[int, set[int]]):
    """The tokens that exceptions cover, by group; filled on first use of each."""

    def __init__(self, tokens: Mapping[frozenset[int], set[int]]) -> None:
        self._tokens = tokens

    def __missing__(self, group: int) -> set[int]:
        own = [tokens for groups, tokens in self._tokens.items() if group in groups]
        self[group] = covered = own[0] if len(own) == 1 else set().union(*own)
        return covered


def load_policy(path: Path | None = None) -> Policy:
    """Load the policy of a rule file; None means the default file of the package.

    Raises:
        PolicyError: the file is invalid; the message says where and why.
    """
    return _default_policy() if path is None else _read_policy(path)


@cache  # a policy never changes
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


def _is_met(clause: _Clause, found: Mapping[_PromptKind, Set[int]]) -> bool:
    return not (
        clause["prompt"].isdisjoint(found["prompt"])
        and clause["negative"].isdisjoint(found["negative"])
    )


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
        alone = frozenset({number})
        for written, groups in ((terms, self.of_term), (exceptions, self.of_exception)):
            for term in chain.from_iterable(map(in_all_cases, written)):
                joined = groups[term] | alone if term in groups else alone
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
