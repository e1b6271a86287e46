"""Selects the images that share the next forward: shortest remaining work first, with ageing.

A pure function of the waiting evaluations, without tensors, queues or clocks.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

CandidateKey = TypeVar("CandidateKey", bound=Hashable)

PATCH = 2
"""The transformer makes one token of PATCH x PATCH latent pixels."""

AGEING = 1 / 50
"""Urgency that a candidate gains with every step it waits, as a share of a full forward."""


@dataclass(frozen=True, slots=True)
class Candidate(Generic[CandidateKey]):
    """One image that waits for the model.

    `shape` is the (height, width) of its latents. `rows` is the number of forward rows that an
    evaluation takes: 2 with guidance. `remaining` counts the evaluations left, `waited` the steps
    without it since it was admitted; it never falls, so that started work is finished. Only
    candidates of an equal `group` share a forward. `setup` is the cost, in tokens, of changing
    the weights before its forward. `owner` is the client it belongs to, `weight` that client's
    share of the engine.
    """

    key: CandidateKey
    shape: tuple[int, int]
    rows: int
    remaining: int
    waited: int
    group: Hashable = None
    setup: int = 0
    owner: Hashable = None
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens that one evaluation adds to a forward."""
        height, width = self.shape
        return self.rows * -(-height // PATCH) * -(-width // PATCH)


def select_batch(
    candidates: Sequence[Candidate[CandidateKey]], *, token_budget: int, ageing: float = AGEING
) -> list[Candidate[CandidateKey]]:
    """Select the members of the next forward, most urgent first. All have one shape and group.

    The most urgent candidate always takes part, even if it exceeds the budget alone. Others of
    its shape and group join while they fit. Ties go to the candidate that comes first in
    `candidates`, which is the order of admission.

    The urgency of a candidate is share * (remaining * tokens + setup) - ageing * budget * waited;
    the smallest value comes first. With ageing above 0 nothing starves: a candidate that arrives
    more than (remaining * tokens + setup) / (ageing * token_budget) steps later than a waiting one
    never overtakes it, and all earlier work ends. `setup` counts as work, so that weights are not
    changed back and forth.

    `share` makes owners equal: it is an owner's number of candidates per weight, relative to the
    largest one. An owner gets no larger part of the engine by sending more requests at once. If
    all owners have equally many, or there is only one, the order does not change.

    Raises:
        ValueError: the budget is not positive or `ageing` is negative.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}, must be at least 1")
    if not ageing >= 0:
        raise ValueError(f"ageing is {ageing}, must be at least 0")

    waiting = Counter(candidate.owner for candidate in candidates)
    most = max((waiting[c.owner] / c.weight for c in candidates), default=1.0)

    def urgency(candidate: Candidate[CandidateKey]) -> float:
        work = candidate.remaining * candidate.tokens + candidate.setup
        share = waiting[candidate.owner] / candidate.weight / most
        return share * work - ageing * token_budget * candidate.waited

    selected: list[Candidate[CandidateKey]] = []
    free = token_budget
    for candidate in sorted(candidates, key=urgency):
        if not selected or (_kind(candidate) == _kind(selected[0]) and candidate.tokens <= free):
            selected.append(candidate)
            free -= candidate.tokens
    return selected


def _kind(candidate: Candidate[CandidateKey]) -> Hashable:
    return candidate.shape, candidate.group
