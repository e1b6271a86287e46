"""Lists the jobs in progress of a client whose API has no job ids.

The list only helps to find jobs: a missing or extra entry changes no job.
"""

import json
import time
from typing import Any, NamedTuple

from redis.asyncio import Redis

from worker.queue.layout import redis_keys
from worker.redis_io.client import unavailable_on_outage

MAX_JOBS = 100
"""Only the newest jobs of a client are listed."""

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
