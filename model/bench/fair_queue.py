"""Start-time fair queueing between the owners of jobs.

The Python version of `worker/queue/scripts/fair_queueing.lua`. `kirazuri bench schedule` uses it
in its simulation, and tests compare the script with it.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

JobKey = TypeVar("JobKey", bound=Hashable)

_LEAST_COST = 0.01


@dataclass
class FairQueue(Generic[JobKey]):
    """Waiting jobs in the order in which they should start.

    A job's turn is its start time in work of an owner of weight 1. An owner's next job starts when
    its last one ends, but not before `clock`, the turn up to which jobs were taken. So an owner
    with few jobs comes next, however many jobs others have, and unused turns do not accumulate.
    """

    clock: float = 0.0
    _ends: dict[Hashable, float] = field(default_factory=dict)
    _waiting: "dict[JobKey, _Place]" = field(default_factory=dict)
    _joined: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, key: JobKey, owner: Hashable, *, cost: float, weight: float = 1.0) -> None:
        """Add a job of this cost."""
        cost = max(cost, _LEAST_COST)
        turn = max(self.clock, self._ends.get(owner, 0.0))
        self._joined += 1
        self._waiting[key] = _Place(turn, self._joined, owner, cost, weight)
        self._ends[owner] = turn + cost / weight

    def order(self) -> list[JobKey]:
        """All waiting jobs, the next one first. Equal turns keep the order of arrival."""
        return sorted(self._waiting, key=lambda key: self._waiting[key].order)

    def turn(self, key: JobKey) -> float:
        """The turn of a waiting job."""
        return self._waiting[key].turn

    def next(self, full: Collection[Hashable] = ()) -> JobKey | None:
        """The next job of an owner that is not in `full`; None if there is none."""
        order = ((p.order, key) for key, p in self._waiting.items() if p.owner not in full)
        return min(order, key=lambda entry: entry[0], default=(None, None))[1]

    def take(self, key: JobKey) -> None:
        """Remove a job that starts now. It need not be the next one."""
        weights = sum({one.owner: one.weight for one in self._waiting.values()}.values())
        place = self._waiting.pop(key)
        # The clock also advances with the work done, at half the rate that each owner receives. So
        # new owners cannot delay a late turn without limit.
        aged = self.clock + place.cost / (2 * weights)
        self.clock = max(place.turn, aged)
        self._ends = {owner: end for owner, end in self._ends.items() if end > self.clock}

    def give_up(self, key: JobKey) -> None:
        """Remove a job that will not start. Its owner's later jobs move up by its share."""
        gone = self._waiting.pop(key)
        share = gone.cost / gone.weight
        for place in self._waiting.values():
            if place.owner == gone.owner and place.turn > gone.turn:
                place.turn = min(place.turn, max(self.clock, place.turn - share))
        if gone.owner in self._ends:
            self._ends[gone.owner] = max(self.clock, self._ends[gone.owner] - share)


@dataclass(slots=True)
class _Place:
    turn: float
    joined: int
    owner: Hashable
    cost: float
    weight: float

    @property
    def order(self) -> tuple[float, int]:
        return self.turn, self.joined
