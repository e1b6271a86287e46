"""A worker's heartbeat: renews its leases and says what it runs and whether it takes jobs."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from worker.job import WorkerStatus
from worker.runtime.round_trip import RoundTrip
from worker.runtime.rq_adapter import Lease, RqAdapter
from worker.runtime.slot import WorkerParts
from worker.settings import Settings

logger = logging.getLogger(__name__)

_METRICS_SECONDS = 5.0


class Heartbeat:
    """Sends heartbeats and keeps what their replies say about server, clock and operator."""

    def __init__(self, parts: WorkerParts, settings: Settings, rq: RqAdapter) -> None:
        self._parts = parts
        self._settings = settings
        self._rq = rq
        self._last: float | None = None
        self._was_warm = False
        self._metrics_at = -math.inf
        self._no_repairs_until = 0.0
        self._is_suspended = False
        self._is_skewed = False
        self._is_server_fit = False

    def is_due(self, now: float) -> bool:
        """Whether it is time for the next one, or there is news: the engine has become warm."""
        if self._last is None or self._parts.engine.is_warm != self._was_warm:
            return True
        return now - self._last > self._settings.heartbeat_seconds

    @property
    def may_claim(self) -> bool:
        """Whether the worker is registered, its clock is right and RQ is not suspended."""
        return self._last is not None and not self._is_suspended and not self._is_skewed

    def may_repair(self, now: float) -> bool:
        """Whether leases of others that look expired are expired."""
        return self._last is not None and now > self._no_repairs_until and not self._is_skewed

    def add(
        self, trip: RoundTrip, leases: Sequence[Lease], *, now: float, is_stopping: bool
    ) -> None:
        """Add a heartbeat to a round trip that begins now."""
        parts, settings, pipeline = self._parts, self._settings, trip.pipeline
        interval = settings.heartbeat_seconds
        if self._last is None or now - self._last > settings.lease_seconds - interval:
            # During a long outage of Redis all leases expire, because nobody can renew them. All
            # workers must have time to renew them before any worker declares their jobs lost.
            self._no_repairs_until = now + 2 * interval + 1
        status = worker_status(
            parts,
            settings,
            running=len(leases),
            is_accepting=self._is_server_fit and not self._is_skewed and not is_stopping,
        )
        self._was_warm = parts.engine.is_warm
        self._rq.add_heartbeat(pipeline, leases)
        parts.queue.heartbeat(pipeline, status)
        if now - self._metrics_at > _METRICS_SECONDS:
            parts.metrics.observe_compiled(parts.engine.stats.compiled)
            parts.queue.send_metrics(pipeline, parts.name, parts.metrics.text())
            self._metrics_at = now
        self._rq.ask_suspended(pipeline)
        parts.queue.check_server(pipeline)
        pipeline.time()
        trip.then(partial(self._read, time.time()))

    def _read(self, before: float, replies: list[Any]) -> None:
        *_, is_suspended, server, (seconds, micros) = replies
        self._last = time.monotonic()
        self._is_suspended = bool(is_suspended)
        self._is_server_fit = self._parts.queue.is_server_fit(server)
        self._check_clock(clock_skew(before, seconds + micros / 1e6, time.time()))

    def _check_clock(self, skew: float) -> None:
        """Workers renew leases by their own clocks: a wrong one would take or lose jobs."""
        limit = self._settings.lease_seconds / 5
        is_skewed = abs(skew) > limit
        if is_skewed and not self._is_skewed:
            logger.error(
                "worker=%s event=clock_skew seconds=%.1f limit=%.1f: takes no jobs until the "
                "clocks agree",
                *(self._parts.name, skew, limit),
            )
        self._is_skewed = is_skewed


def clock_skew(before: float, server: float, after: float) -> float:
    """Seconds by which the local clock is ahead of the server's, within the round trip."""
    return before - server if before > server else min(after - server, 0.0)


def worker_status(
    parts: WorkerParts, settings: Settings, *, running: int, is_accepting: bool
) -> WorkerStatus:
    """The status of a worker with `running` jobs.

    `is_accepting` is what the control loop knows: the clock is right and nobody stopped the worker.
    """
    engine, stats, about = parts.engine, parts.engine.stats, parts.engine.description
    step_seconds = engine.step_seconds()
    is_stalled = step_seconds > settings.stall_seconds
    return WorkerStatus(
        name=parts.name,
        is_warm=engine.is_warm and is_accepting and not is_stalled and not parts.publisher.is_down,
        seen_at=datetime.now(UTC),
        card=str(about.get("card", settings.card)),
        device=str(about.get("device", settings.device)),
        precision=str(about.get("precision", settings.precision)),
        running=running,
        forwards=stats.forwards,
        evaluations=stats.evaluations,
        recipe=parts.recipe() if engine.is_warm else None,
        experimental=settings.experimental,
        details={
            **about,
            "checkpoints": parts.checkpoints(),
            "rows": stats.rows,
            "forward_seconds": round(stats.forward_seconds, 3),
            "shortages": stats.shortages,
            "compiled": asdict(stats.compiled),
            "step_seconds": round(step_seconds, 1),
            "unstored": parts.publisher.pending,
            "cost_per_second": parts.throughput.update(engine.busy_seconds),
        },
    )
