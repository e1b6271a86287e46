"""What the scripts have counted since the queue was made: jobs, their waits and durations.

Counted in the step of the transition itself, so nothing is lost with a worker or an API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from worker.job_errors import FAILURES
from worker.queue import record
from worker.queue.eta import EtaAccuracy

BOUNDS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "120", "300", "600", "1800")
"""Seconds; upper bounds of the classes that `scripts/prelude.lua` counts in, before infinity."""

FINISHED = ("succeeded", "failed", "cancelled")
RETRIES = ("worker_lost", "worker_stopped", "storage", "engine_error", "out_of_memory")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound, the last for all, and the sum of what was counted."""

    counts: tuple[tuple[str, int], ...]
    total: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts since the queue was made; `oldest_seconds` is how long the oldest job has waited."""

    accepted: int
    finished: Mapping[str, int]
    failures: Mapping[str, int]
    retries: Mapping[str, int]
    waits: Histogram
    durations: Mapping[str, Histogram]
    promises: EtaAccuracy
    oldest_seconds: float


async def read_tallies(redis: "Redis") -> Counters:
    """All counts as they are now."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.hgetall(record.TOTALS)
    pipeline.zrange(record.QUEUED, 0, 0, withscores=True)
    pipeline.time()
    totals, oldest, (seconds, micros) = await pipeline.execute()
    now = seconds + micros / 1e6
    return Counters(
        accepted=int(totals.get("accepted", 0)),
        finished={status: int(totals.get(status, 0)) for status in FINISHED},
        failures=_by_name(totals, "failed:", FAILURES),
        retries=_by_name(totals, "retried:", RETRIES),
        waits=_spread(totals, "waited"),
        durations={status: _spread(totals, f"took_{status}") for status in FINISHED},
        promises=EtaAccuracy(
            int(totals.get("promised", 0)),
            float(totals.get("promised_took", 0)),
            float(totals.get("promised_error", 0)),
        ),
        oldest_seconds=round(max(0.0, now - float(oldest[0][1])), 3) if oldest else 0.0,
    )


def _by_name(totals: Mapping[str, Any], prefix: str, known: tuple[str, ...]) -> dict[str, int]:
    """Counts of what is known, and of what another release counted."""
    found = {name.removeprefix(prefix) for name in totals if name.startswith(prefix)}
    return {name: int(totals.get(prefix + name, 0)) for name in sorted({*known, *found})}


def _spread(totals: Mapping[str, Any], name: str) -> Histogram:
    running, counts = 0, []
    for bound in (*BOUNDS, "+Inf"):
        running += int(totals.get(f"{name}:{bound}", 0))
        counts.append((bound, running))
    return Histogram(tuple(counts), float(totals.get(f"{name}:sum", 0)))
