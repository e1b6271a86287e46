"""Finds the jobs of clients that know no job ids: those in progress, and those of calls cut short.

The lists only help to find jobs: a missing or extra entry changes no job.
"""

import time
from typing import Any, NamedTuple

from redis.asyncio import Redis
from ulid import ULID

from worker.queue.event_stream import parsed
from worker.queue.layout import redis_keys
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.client import unavailable_on_outage

MAX_JOBS = 100
"""Only the newest jobs of a client are listed."""

_LONGEST_WAIT_SECONDS = 3600

_NEWEST_EVENTS = (8, 64)
"""How many events are searched for the newest preview: first a few, then more."""


class ClientJob(NamedTuple):
    """A job that may be in progress; `is_abandoned` if its client has hung up."""

    job_id: str
    is_abandoned: bool


class ClientIndex:
    """The jobs of one client. Every method may raise QueueUnavailable."""

    def __init__(self, redis: Redis, client: str, *, ttl_seconds: int) -> None:
        self._redis = redis
        self._key = redis_keys.client_key(client)
        self._ttl_seconds = ttl_seconds

    async def add(self, job_id: str) -> None:
        """Add a job that was just accepted."""
        await self._write(job_id, time.time())

    async def mark_abandoned(self, job_id: str) -> None:
        """Record that the client no longer waits for the job."""
        await self._write(job_id, -time.time())

    async def remove(self, *job_ids: str) -> None:
        """Remove jobs that have ended."""
        if job_ids:
            with unavailable_on_outage():
                await self._redis.zrem(self._key, *job_ids)

    async def jobs(self) -> list[ClientJob]:
        """The jobs that were not removed, oldest first."""
        with unavailable_on_outage():
            scored: Any = await self._redis.zrange(self._key, 0, -1, withscores=True)
        found = sorted((abs(score), ClientJob(job_id, score < 0)) for job_id, score in scored)
        return [job for _, job in found]

    async def newest_preview(self, job_id: str) -> str | None:
        """The data URL of the newest preview among a job's events; None if there is none."""
        for count in _NEWEST_EVENTS:
            with unavailable_on_outage():
                entries: Any = await self._redis.xrevrange(
                    redis_keys.events_key(job_id), count=count
                )
            for _, fields in entries:
                image = parsed(fields.get("data"), dict).get("image")
                if fields.get("event") == "preview" and isinstance(image, str):
                    return image
            if len(entries) < count:
                break
        return None

    async def _write(self, job_id: str, score: float) -> None:
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zadd(self._key, {job_id: score})
            pipeline.zremrangebyrank(self._key, 0, -MAX_JOBS - 1)
            pipeline.expire(self._key, self._ttl_seconds)
            await pipeline.execute()


class WaitingCall:
    """A call that waits for the images of its job.

    If it ends without them, or its process dies, the next call like it finds the job. Calls are
    alike if they have the same `key`; `process` names the API process.
    """

    def __init__(self, redis: Redis, key: str, process: str, *, ttl_seconds: int) -> None:
        self._redis = redis
        self._key = key
        self._process = process
        self._id = str(ULID())
        self._ttl_seconds = ttl_seconds
        self.job_id: str | None = None
        """Set when the job is known, until the call has ended."""

    @property
    def arguments(self) -> tuple[str, str, str, int]:
        """What `admit.lua` needs to know; while the call waits, the key is kept for longer."""
        return self._key, self._process, self._id, self._ttl_seconds + _LONGEST_WAIT_SECONDS

    async def end(self, *, is_served: bool) -> None:
        """Record how the call ended: the client has its answer, or a later call finds the job.

        Only the first end counts.

        Raises:
            QueueUnavailable: Redis is away; without an answer the job is found later.
        """
        job_id, self.job_id = self.job_id, None
        if job_id is None:
            return
        leave = LuaScript(self._redis, "leave_call")
        holder, served = f"{self._process} {self._id}", "1" if is_served else ""
        with unavailable_on_outage():
            await leave(job_id, self._key, holder, served, self._ttl_seconds)
