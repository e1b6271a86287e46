"""Reads the state of the whole queue: depth, counters, workers, and the ETA of a new job."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.job import NO_CARD, Checkpoint, WorkerStatus
from worker.queue.counters import Counters, read_counters
from worker.queue.eta import Eta, Throughput, forecast
from worker.queue.layout import redis_keys
from worker.queue.layout.tolerant import TolerantReader, shared_number
from worker.queue.outbox import OutboxState, read_outbox_state
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.client import is_outage, unavailable_on_outage
from worker.redis_io.server_faults import FaultLog, ServerState, read_state
from worker.telemetry.background import stop_task

log = logging.getLogger(__name__)

_MAX_RETRY_AFTER = 120

_THROUGHPUT_SECONDS = 1.0
"""The throughput of the workers is read again after this time, while the last one is in use."""

_OLD_THROUGHPUT_SECONDS = 10.0
"""A throughput of this age is not used any more."""


class SeenWorker(NamedTuple):
    """A worker's last heartbeat, sent `age` seconds ago by the clock of Redis."""

    status: WorkerStatus
    age: float


class QueueState:
    """What all jobs and workers do together. Every method may raise QueueUnavailable."""

    def __init__(self, redis: "Redis", checkpoint: Checkpoint = NO_CARD) -> None:
        self._redis = redis
        self.started_at = time.monotonic()
        self.checkpoint = checkpoint
        self._queue_position = LuaScript(redis, "queue_position")
        self._waiting_checkpoints = LuaScript(redis, "waiting_checkpoints")
        self._check_server = LuaScript(redis, "check_server")
        self._fault_log = FaultLog()
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

    async def waiting_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints for which jobs wait in the queue."""
        with unavailable_on_outage():
            return [(card, checkpoint) for card, checkpoint in await self._waiting_checkpoints("")]

    async def counters(self) -> Counters:
        """All counts since the queue was created."""
        with unavailable_on_outage():
            return await read_counters(self._redis)

    async def outbox(self) -> OutboxState:
        """The number of waiting webhook deliveries, and past attempts by outcome."""
        with unavailable_on_outage():
            return await read_outbox_state(self._redis)

    async def server(self) -> ServerState:
        """The faults of the server, which are logged when they come and go."""
        with unavailable_on_outage():
            try:
                reply = await self._check_server("")
            except ResponseError as exc:
                if not is_outage(exc):
                    raise
                reply = exc
        return self._fault_log.note(read_state(reply))

    async def workers(self) -> list[WorkerStatus]:
        """The statuses of all workers that sent a heartbeat within 15 seconds."""
        return [heartbeat.status for heartbeat in await self.heartbeats()]

    async def heartbeats(self) -> list[SeenWorker]:
        """The last heartbeats of all workers that sent one within 15 seconds."""
        with unavailable_on_outage():
            names: list[Any] = sorted(await self._redis.smembers(redis_keys.WORKERS))
            if not names:
                return []
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.get(redis_keys.worker_key(name))
                pipeline.pttl(redis_keys.worker_key(name))
            replies = await pipeline.execute()
        known = TolerantReader(dict(zip(names, replies[::2], strict=True)))
        return [
            SeenWorker(status, redis_keys.HEARTBEAT_TTL_SECONDS - milliseconds / 1000)
            for name, milliseconds in zip(names, replies[1::2], strict=True)
            if (status := known.part(name, WorkerStatus)) is not None
        ]

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
        measured = [worker.number("cost_per_second") for worker in workers]
        self._throughput = Throughput(sum(measured), sum(one > 0 for one in measured))
        self._throughput_read_at = time.monotonic()

    async def forecast(self, request: ResolvedRequest, owner: str) -> Eta:
        """When an owner's request would be done if it were admitted now."""
        with unavailable_on_outage():
            position, running, mean_cost = await self._queue_position("", owner, *self.checkpoint)
        return forecast(
            megapixel_steps(request),
            position=position,
            running=running,
            mean_cost=shared_number(redis_keys.MEAN_COST, mean_cost),
            throughput=await self.throughput(),
        )

    async def close(self) -> None:
        """Stop reading."""
        if self._reading_throughput is not None:
            await stop_task(self._reading_throughput)


def retry_after(mean_cost: float, throughput: Throughput) -> int:
    """Seconds until a place in the queue is likely to be free, 1 to 120."""
    cost_per_second = throughput.cost_per_second
    seconds = mean_cost / cost_per_second if cost_per_second else 1.0
    return max(1, min(_MAX_RETRY_AFTER, round(seconds + 0.5)))


def _note_failure(reading: "asyncio.Task[None]") -> None:
    """Log why the throughput stays as it was; whoever waits gets the error as well."""
    if not reading.cancelled() and (exc := reading.exception()):
        log.debug("cannot read the throughput of the workers: %s", exc)
