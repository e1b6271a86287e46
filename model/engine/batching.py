"""Which of the waiting evaluations share the next forward: a pure function of what waits.

Shortest remaining work first, with ageing. It knows no tensors, queue or clock.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

PATCH = 2
"""The transformer makes one token of PATCH x PATCH latent pixels."""

AGEING = 1 / 50
"""Share of a full forward by which one step sat out brings a candidate forward."""


@dataclass(frozen=True, slots=True)
class Candidate(Generic[Key]):
    """One trajectory that waits for the model.

    `shape` is the latents' (height, width), `rows` the forward rows an evaluation takes (2 with
    guidance), `remaining` the evaluations left, `waited` the steps since it was admitted in which
    it took no part: a number that only grows, so that old work is finished once it is begun.
    Only candidates of an equal `group` share a forward; one of its own keeps a candidate alone.
    `setup` is what must be done before its forward, in tokens: weights may have to be changed.
    `owner` is who waits for it, `weight` that owner's share beside the others'.
    """

    key: Key
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


def choose(
    candidates: Sequence[Candidate[Key]], *, token_budget: int, ageing: float = AGEING
) -> list[Candidate[Key]]:
    """Choose the members of the next forward, of one latent shape and group, most urgent first.

    The most urgent candidate always takes part, even alone above the budget; others of its kind
    join while they fit. Ties go to the one that comes first in `candidates`, in order of
    admission. ValueError if the budget is not positive or `ageing` is negative.

    Nothing starves while `ageing` is above 0: whatever is admitted more than
    (remaining * tokens + setup) / (ageing * token_budget) steps after a candidate that has not
    run yet is less urgent than it from the start and for ever, and what came before comes to an
    end. `setup` counts with the work, so that weights are not changed back and forth.

    Between owners, the work of one who has many candidates for its weight counts in full, that of
    the others less, by what they have fewer: nobody gets more of the engine by asking for more at a
    time. Among the candidates of one owner, and with all owners alike, this changes nothing.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}, must be at least 1")
    if not ageing >= 0:
        raise ValueError(f"ageing is {ageing}, must be at least 0")

    asked = Counter(candidate.owner for candidate in candidates)
    most = max((asked[c.owner] / c.weight for c in candidates), default=1.0)

    def urgency(candidate: Candidate[Key]) -> float:
        work = candidate.remaining * candidate.tokens + candidate.setup
        share = asked[candidate.owner] / candidate.weight / most
        return share * work - ageing * token_budget * candidate.waited

    chosen: list[Candidate[Key]] = []
    free = token_budget
    for candidate in sorted(candidates, key=urgency):
        if not chosen or (_kind(candidate) == _kind(chosen[0]) and candidate.tokens <= free):
            chosen.append(candidate)
            free -= candidate.tokens
    return chosen


def _kind(candidate: Candidate[Key]) -> Hashable:
    return candidate.shape, candidate.group
