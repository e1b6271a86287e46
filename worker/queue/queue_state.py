"""Reads the state of the whole queue: depth, counters, workers, and the ETA of a new job."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.job import WorkerStatus
from worker.queue.counters import Counters, read_counters
from worker.queue.eta import Eta, Throughput, forecast
from worker.queue.layout import redis_keys
from worker.queue.layout.tolerant import TolerantReader
from worker.queue.outbox import OutboxState, read_outbox_state
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.client import unavailable_on_outage
from worker.telemetry.background import stop_task

log = logging.getLogger(__name__)

_MAX_RETRY_AFTER = 120

_THROUGHPUT_SECONDS = 1.0
"""The throughput of the workers is read again after this time, while the last one is in use."""

_OLD_THROUGHPUT_SECONDS = 10.0
"""A throughput of this age is not used any more."""


class QueueState:
    """What all jobs and workers do together. Every method may raise QueueUnavailable."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._queue_position = LuaScript(redis, "queue_position")
        self._throughput = Throughput()
        self._throughput_read_at: float | None = None
        self._reading_throughput: asyncio.Task[None] | None = None

    async def depth(self) -> tuple[int, int]:
        """The numbers of queued and running jobs."""
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zcard(redis_keys.QUEUED)
            pipeline.zcard(redis_keys.RUNNING)
            queued, running = await pipeline.execute()
        return int(queued), int(running)

    async def counters(self) -> Counters:
        """All counts since the queue was created."""
        with unavailable_on_outage():
            return await read_counters(self._redis)

    async def outbox(self) -> OutboxState:
        """The number of waiting webhook deliveries, and past attempts by outcome."""
        with unavailable_on_outage():
            return await read_outbox_state(self._redis)

    async def workers(self) -> list[WorkerStatus]:
        """The last heartbeats of all workers that sent one within 15 seconds."""
        with unavailable_on_outage():
            names: list[Any] = sorted(await self._redis.smembers(redis_keys.WORKERS))
            if not names:
                return []
            heartbeats: list[Any] = await self._redis.mget(
                [redis_keys.worker_key(name) for name in names]
            )
        known = TolerantReader(dict(zip(names, heartbeats, strict=True)))
        found = (known.part(name, WorkerStatus) for name in names)
        return [status for status in found if status is not None]

    async def worker_metrics(self, names: Sequence[str]) -> dict[str, str]:
        """The last metrics of these workers, in Prometheus' text format, by name."""
        if not names:
            return {}
        with unavailable_on_outage():
            keys = [redis_keys.worker_metrics_key(name) for name in names]
            texts: Any = await self._redis.mget(keys)
        return {name: text for name, text in zip(names, texts, strict=True) if text}

    async def throughput(self) -> Throughput:
        """The throughput of all live workers together.

        Under load it is a second old, since only the first caller after a pause waits for Redis.
        """
        read_at, age = self._throughput_read_at, math.inf
        if read_at is not None:
            age = time.monotonic() - read_at
        if age > _THROUGHPUT_SECONDS:
            if self._reading_throughput is None or self._reading_throughput.done():
                self._reading_throughput = asyncio.create_task(self._read_throughput())
                self._reading_throughput.add_done_callback(_note_failure)
            if age > _OLD_THROUGHPUT_SECONDS:
                await asyncio.shield(self._reading_throughput)  # others may wait for it too
        return self._throughput

    async def _read_throughput(self) -> None:
        workers = await self.workers()
        measured = [float(w.details.get("cost_per_second") or 0) for w in workers]
        self._throughput = Throughput(sum(measured), sum(one > 0 for one in measured))
        self._throughput_read_at = time.monotonic()

    async def forecast(self, request: ResolvedRequest, owner: str) -> Eta:
        """When an owner's request would be done if it were admitted now."""
        with unavailable_on_outage():
            position, running, mean_cost = await self._queue_position("", owner)
        return forecast(
            megapixel_steps(request),
            position=position,
            running=running,
            mean_cost=float(mean_cost or 0) or None,
            throughput=await self.throughput(),
        )

    async def close(self) -> None:
        """Stop reading."""
        if self._reading_throughput is not None:
            await stop_task(self._reading_throughput)


def retry_after(mean_cost: float | None, throughput: Throughput) -> int:
    """Seconds until a place in the queue is likely to be free, 1 to 120."""
    cost_per_second = throughput.cost_per_second
    seconds = (mean_cost or 0) / cost_per_second if cost_per_second else 1.0
    return max(1, min(_MAX_RETRY_AFTER, round(seconds + 0.5)))


def _note_failure(reading: "asyncio.Task[None]") -> None:
    """Log why the throughput stays as it was; whoever waits gets the error as well."""
    if not reading.cancelled() and (exc := reading.exception()):
        log.debug("cannot read the throughput of the workers: %s", exc)
