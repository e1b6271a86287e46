"""When a job would be done, from what waits before it and what the workers get through.

Pure arithmetic on measured numbers; knows no queue.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EtaAccuracy:
    """Succeeded jobs that were told a time at submission: seconds in all, and off by."""

    jobs: int
    took_seconds: float
    error_seconds: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Megapixel-steps per second of all workers that have been measured, and their number."""

    cost_per_second: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds until a job's turn and from there to its end; None where nothing was measured."""

    queue_position: int | None = None
    waiting_seconds: float | None = None
    own_seconds: float | None = None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end."""
        if self.waiting_seconds is None or self.own_seconds is None:
            return None
        return round(self.waiting_seconds + self.own_seconds, 1)


def forecast(
    cost: float, *, position: int, running: int, mean_cost: float | None, pace: Throughput
) -> Eta:
    """Estimate the times of a job of this cost with `position` jobs before it.

    What runs is taken to be half done. All workers together get through what waits; the job
    itself has one of them. `mean_cost` is that of the latest jobs.
    """
    if not pace.workers or pace.cost_per_second <= 0:
        return Eta(position)
    ahead = position + running / 2
    waiting = None if ahead and not mean_cost else ahead * (mean_cost or 0) / pace.cost_per_second
    return Eta(
        position,
        None if waiting is None else round(waiting, 1),
        round(cost * pace.workers / pace.cost_per_second, 1),
    )
