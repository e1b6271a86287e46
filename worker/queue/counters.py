"""Reads what the scripts count: jobs, their waiting times and durations.

They count in the same step as the transition, so a crash of a worker or an API loses no count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from worker.job_errors import FAILURES
from worker.queue.eta import EtaAccuracy
from worker.queue.layout import redis_keys
from worker.queue.layout.tolerant import shared_number

BUCKETS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "120", "300", "600", "1800")
"""Upper bounds of the buckets of histograms, in seconds; +Inf follows."""

FINISHED = ("succeeded", "failed", "cancelled")
RETRIES = ("worker_lost", "worker_stopped", "storage", "engine_error", "out_of_memory")


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound, the last one +Inf, and the sum of all values."""

    counts: tuple[tuple[str, int], ...]
    total: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts since the queue was created, and for how long the oldest queued job has waited."""

    accepted: int
    finished: Mapping[str, int]
    failures: Mapping[str, int]
    retries: Mapping[str, int]
    waits: Histogram
    durations: Mapping[str, Histogram]
    eta_accuracy: EtaAccuracy
    oldest_queued_seconds: float


async def read_counters(redis: "Redis") -> Counters:
    """Read all counters."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.hgetall(redis_keys.COUNTERS)
    pipeline.zrange(redis_keys.QUEUED, 0, 0, withscores=True)
    pipeline.time()
    totals, oldest, (seconds, micros) = await pipeline.execute()
    now = seconds + micros / 1e6
    return Counters(
        accepted=counted(totals, "accepted"),
        finished={status: counted(totals, status) for status in FINISHED},
        failures=_by_name(totals, "failed:", FAILURES),
        retries=_by_name(totals, "retried:", RETRIES),
        waits=_histogram(totals, "waited"),
        durations={status: _histogram(totals, f"took_{status}") for status in FINISHED},
        eta_accuracy=EtaAccuracy(
            counted(totals, "promised"),
            _sum(totals, "promised_took"),
            _sum(totals, "promised_error"),
        ),
        oldest_queued_seconds=round(max(0.0, now - float(oldest[0][1])), 3) if oldest else 0.0,
    )


def counted(totals: Mapping[str, Any], name: str) -> int:
    """A count; 0 if it is missing or unreadable."""
    return int(_sum(totals, name))


def _sum(totals: Mapping[str, Any], name: str) -> float:
    return shared_number(f"{redis_keys.COUNTERS} {name}", totals.get(name))


def _by_name(totals: Mapping[str, Any], prefix: str, known: tuple[str, ...]) -> dict[str, int]:
    """Counts of the known names, and of those that another release counted."""
    found = {name.removeprefix(prefix) for name in totals if name.startswith(prefix)}
    return {name: counted(totals, prefix + name) for name in sorted({*known, *found})}


def _histogram(totals: Mapping[str, Any], name: str) -> Histogram:
    running, counts = 0, []
    for bound in (*BUCKETS, "+Inf"):
        running += counted(totals, f"{name}:{bound}")
        counts.append((bound, running))
    return Histogram(tuple(counts), _sum(totals, f"{name}:sum"))
