"""Which jobs a client of a surface without job ids has under way, so that it can be told of them.

An index beside the records: what it has lost or has too much of changes no job.
"""

import json
import time
from typing import Any, NamedTuple

from redis.asyncio import Redis

from worker.queue import record
from worker.redis_io.client import unavailable_on_outage

MAX_JOBS = 100
"""Of a client's jobs so many are remembered."""

_NEWEST_EVENTS = (8, 64)
"""Among so many of a job's events its newest preview is looked for, which is among few mostly."""


class ClientJob(NamedTuple):
    """A job that may be under way; `has_left`: whoever waited for it has hung up."""

    job_id: str
    has_left: bool


class ClientIndex:
    """The jobs of one client, by the name that its surface gives it. Routes look them up again.

    Everything raises QueueUnavailable where Redis is away.
    """

    def __init__(self, redis: Redis, client: str, *, ttl_seconds: int) -> None:
        self._redis = redis
        self._key = record.client_key(client)
        self._ttl_seconds = ttl_seconds

    async def add(self, job_id: str) -> None:
        """Remember a job that was just accepted."""
        await self._write(job_id, time.time())

    async def mark_left(self, job_id: str) -> None:
        """Remember that nobody waits for the job's answer any more."""
        await self._write(job_id, -time.time())

    async def forget(self, *job_ids: str) -> None:
        """Let go of jobs that have ended."""
        if job_ids:
            with unavailable_on_outage():
                await self._redis.zrem(self._key, *job_ids)

    async def listed(self) -> list[ClientJob]:
        """Those that were not forgotten, oldest first."""
        with unavailable_on_outage():
            scored: Any = await self._redis.zrange(self._key, 0, -1, withscores=True)
        found = sorted((abs(score), ClientJob(job_id, score < 0)) for job_id, score in scored)
        return [job for _, job in found]

    async def newest_preview(self, job_id: str) -> str | None:
        """The data URL of the newest preview among a job's events; None where there is none."""
        for count in _NEWEST_EVENTS:
            with unavailable_on_outage():
                entries: Any = await self._redis.xrevrange(record.events_key(job_id), count=count)
            for _, fields in entries:
                if fields["event"] == "preview":
                    image: str = json.loads(fields["data"])["image"]
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
