"""What is refused, whatever dialect it came in: judged on the prompts and LoRAs that would be run.

Words such as "not", a claim to be adult or a negative weight excuse nothing. Knows no HTTP.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from model.errors import PolicyBlocked, PolicyError
from model.policy.matcher import TermMatch, TermMatcher
from model.policy.rules import MAX_RATING, Clause, CoreFile, load_core, load_rules, merge_rules
from model.prompt_grammar import parse_prompt
from model.rating import RATINGS, Rating

_Side = Literal["prompt", "negative"]


class WeightedLora(Protocol):
    """A LoRA as a request names it."""

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
    """All words of a request, by what they do to the picture: towards it, or away from it."""

    prompt: str
    negative: str


class Policy:
    """The core's rules and those of one file. May be asked from any thread."""

    def __init__(self, rules: CoreFile) -> None:
        """Compile the rules. PolicyError where a term can never be found."""
        self._groups: dict[str, int] = {}
        self._belongs: dict[str, set[int]] = defaultdict(set)
        self._excuses: dict[str, set[int]] = defaultdict(set)
        for name, group in rules.groups.items():
            self._add(f"${name}", group.all_terms, group.exceptions)
        self._rules = [
            (rule, [self._clause(clause, rule.exceptions) for clause in rule.clauses])
            for rule in rules.rules
        ]
        self._ratings = [
            (rating, self._clause(rules.ratings[rating], ()))
            for rating in reversed(RATINGS)
            if rating in rules.ratings
        ]
        self._safe = self._clause(rules.safe, ())
        terms = [*self._belongs, *(term for term in self._excuses if term not in self._belongs)]
        self._terms = [(self._belongs.get(t, set()), self._excuses.get(t, set())) for t in terms]
        self._lexicon = TermMatcher(terms, rules.fillers)

    def check(
        self,
        prompt: str,
        negative_prompt: str = "",
        *,
        ceiling: Rating,
        loras: Sequence[WeightedLora] = (),
        trigger_words: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> PolicyDecision:
        """Let words pass that would be run; `trigger_words` are those of the LoRAs, by name.

        Raises:
            PolicyBlocked: a rule refuses them, or they ask for a higher rating than `ceiling`.
            PromptError: a prompt's brackets cannot be read.
        """
        spoken = collect_texts(prompt, negative_prompt, loras, trigger_words)
        found: dict[_Side, set[int]] = {
            "prompt": self._found(spoken.prompt),
            "negative": self._found(spoken.negative),
        }
        for rule, clauses in self._rules:
            if all(_holds(clause, found) for clause in clauses):
                raise PolicyBlocked(rule.name, rule.reason)
        asked: Rating = next(
            (rating for rating, clause in self._ratings if _holds(clause, found)), "safe"
        )
        if RATINGS.index(asked) > RATINGS.index(ceiling):
            raise PolicyBlocked(
                MAX_RATING, f"it asks for {asked}, and {ceiling} is allowed at most"
            )
        return PolicyDecision(asked, "safe" if _holds(self._safe, found) else ceiling)

    def _found(self, text: str) -> set[int]:
        """The groups of which a term is in a text."""
        found: set[int] = set()
        for hits in self._lexicon.find(text):
            covered = self._covered(hits)
            for hit in hits:
                found |= {
                    group
                    for group in self._terms[hit.term][0]
                    if not {hit.first, hit.last} <= covered[group]
                }
        return found

    def _covered(self, hits: Iterable[TermMatch]) -> dict[int, set[int]]:
        """The tokens that are words of an exception, by the group that it is one of."""
        covered: dict[int, set[int]] = defaultdict(set)
        for hit in hits:
            if hit.is_literal:  # an exception is never read into what is written otherwise
                for group in self._terms[hit.term][1]:
                    covered[group].update(range(hit.first, hit.last + 1))
        return covered

    def _add(self, name: str, terms: Iterable[str], exceptions: Iterable[str]) -> int:
        group = self._groups[name] = len(self._groups)
        for term in terms:
            self._belongs[term].add(group)
        for term in exceptions:
            self._excuses[term].add(group)
        return group

    def _clause(self, clause: Clause, exceptions: Sequence[str]) -> dict[_Side, set[int]]:
        """The groups of a clause, terms of its own as one more."""
        sides: dict[_Side, list[str]] = {"prompt": clause.prompt, "negative": clause.negative}
        groups: dict[_Side, set[int]] = {}
        for side, terms in sides.items():
            groups[side] = {self._groups[term] for term in terms if term.startswith("$")}
            own = [term for term in terms if not term.startswith("$")]
            if own:
                groups[side].add(self._add(f"{len(self._groups)}", own, exceptions))
        return groups


def load_policy(path: Path | None = None) -> Policy:
    """The policy of a rule file, or of the one that ships.

    Raises:
        PolicyError: the file cannot be used; the message says where and why.
    """
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
    """The words that would be run.

    What is weighted away from the picture counts as said, and as said in the negative prompt too;
    in the negative prompt the other way round. So nothing hides behind the sign of a weight.
    """
    said, denied = parse_prompt(prompt), parse_prompt(negative_prompt)
    towards = ["".join(segment.text for segment in said), _only(denied, is_away=True)]
    away = [_only(denied, is_away=False), _only(said, is_away=True)]
    for lora in loras:
        names = ", ".join([lora.name, *trigger_words.get(lora.name, ())])
        towards.append(names)
        if lora.weight < 0:
            away.append(names)
    return RequestTexts(", ".join(towards), ", ".join(away))


def _only(segments: Sequence[tuple[str, float]], *, is_away: bool) -> str:
    """The segments with a weight of at most 0, or those with more; commas for the others."""
    return "".join(text if (weight <= 0) is is_away else ", " for text, weight in segments)


def _holds(clause: Mapping[_Side, set[int]], found: Mapping[_Side, set[int]]) -> bool:
    return any(clause[side] & found[side] for side in clause)
