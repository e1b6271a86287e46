"""Estimates when a job will be done, from the jobs before it and the workers' throughput."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EtaAccuracy:
    """Succeeded jobs that had an ETA at submission: their total time and total absolute error."""

    jobs: int
    took_seconds: float
    error_seconds: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Megapixel-steps per second of all measured workers together, and their number."""

    cost_per_second: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds until a job's turn and from there to its end; None if nothing was measured."""

    queue_position: int | None = None
    waiting_seconds: float | None = None
    own_seconds: float | None = None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end of the job."""
        if self.waiting_seconds is None or self.own_seconds is None:
            return None
        return round(self.waiting_seconds + self.own_seconds, 1)


def forecast(
    cost: float, *, position: int, running: int, mean_cost: float, throughput: Throughput
) -> Eta:
    """Estimate the times of a job of this cost with `position` jobs before it.

    Running jobs count as half done. All workers share the jobs before it; one of them carries out
    the job itself. `mean_cost` is the mean of the latest jobs, 0 if unknown. Costs are in
    megapixel-steps.
    """
    if not throughput.workers or throughput.cost_per_second <= 0:
        return Eta(position)
    ahead = position + running / 2
    is_known = ahead == 0 or mean_cost > 0
    waiting = ahead * mean_cost / throughput.cost_per_second if is_known else None
    return Eta(
        position,
        None if waiting is None else round(waiting, 1),
        round(cost * throughput.workers / throughput.cost_per_second, 1),
    )
