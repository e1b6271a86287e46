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

    A turn is a start time in work of an owner of weight 1. An owner's next job starts when its last
    one ends; the first of an idle owner, not before `clock`, the turn up to which jobs were taken.
    So an owner with few jobs comes next, however many jobs others have, and unused turns do not
    accumulate.
    """

    clock: float = 0.0
    _ends: dict[Hashable, float] = field(default_factory=dict)
    _lines: "dict[Hashable, _Line[JobKey]]" = field(default_factory=dict)
    _owners: dict[JobKey, Hashable] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._owners)

    def join(self, key: JobKey, owner: Hashable, *, cost: float, weight: float = 1.0) -> None:
        """Add a job of this cost."""
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = _Line(max(self.clock, self._ends.get(owner, 0.0)), weight)
        line.weight = weight
        line.jobs[key] = max(cost, _LEAST_COST), weight
        self._owners[key] = owner

    def owner(self, key: JobKey) -> Hashable:
        """The owner of a waiting job."""
        return self._owners[key]

    def turn(self, owner: Hashable) -> float:
        """The turn of the first waiting job of an owner."""
        return self._lines[owner].turn

    def next(self, full: Collection[Hashable] = ()) -> JobKey | None:
        """The next job of an owner that is not in `full`; None if there is none."""
        lines = (line for owner, line in self._lines.items() if owner not in full)
        first = min(lines, key=lambda line: line.turn, default=None)
        return next(iter(first.jobs)) if first else None

    def take(self, key: JobKey) -> None:
        """Remove a job that starts now."""
        weights = sum(line.weight for line in self._lines.values())
        line = self._lines[self._owners[key]]
        cost, weight = line.jobs[key]
        # The clock also advances with the work done, at half the rate that each owner receives. So
        # new owners cannot delay a late turn without limit.
        self.clock = max(line.turn, self.clock + cost / (2 * weights))
        line.turn += cost / weight
        self._remove(key)
        self._ends = {owner: end for owner, end in self._ends.items() if end > self.clock}

    def give_up(self, key: JobKey) -> None:
        """Remove a job that will not start. Its owner's next job gets its turn."""
        self._remove(key)

    def _remove(self, key: JobKey) -> None:
        owner = self._owners.pop(key)
        line = self._lines[owner]
        del line.jobs[key]
        if not line.jobs:
            self._ends[owner] = line.turn
            del self._lines[owner]


@dataclass(slots=True)
class _Line(Generic[JobKey]):
    """An owner's jobs in order, with cost and weight, and the turn of the first one."""

    turn: float
    weight: float
    jobs: dict[JobKey, tuple[float, float]] = field(default_factory=dict)
