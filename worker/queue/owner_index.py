"""What belongs to an owner: pictures by name, jobs newest first, and how much of a key is used up.

Knows neither keys nor HTTP.
"""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.asyncio import Redis

from worker.errors import DAY_SECONDS
from worker.job import Status
from worker.queue import record
from worker.redis_io.client import unavailable_on_outage
from worker.store.image_store import expired, is_name, not_found

_MOST_LOOKED_AT = 1000
"""Of an owner's jobs in one call; a page of a rare status may have fewer than were asked for."""


class JobPage(NamedTuple):
    """Ids of jobs, newest first; `following` is the cursor of the next page, None where none is."""

    job_ids: list[str]
    following: str | None


@dataclass(frozen=True, slots=True)
class OwnerUsage:
    """How many jobs of an owner have not ended, and the work that was accepted today."""

    unfinished: int
    spent: float


class OwnerIndex:
    """What one owner has. Everything raises QueueUnavailable where Redis is away."""

    def __init__(self, client: Redis, owner: str) -> None:
        self._redis = client
        self._owner = owner
        self._list = client.register_script(record.script("list"))

    async def check_picture(self, name: str) -> None:
        """Nothing where a job of the owner made the picture or starts from it, and is kept.

        Raises:
            ImageNotFound: none did; in the same words as where there never was one.
            ImageExpired: the last of these jobs has expired.
        """
        if not is_name(name):
            raise not_found(name)
        with unavailable_on_outage():
            until: Any = await self._redis.zscore(record.owners_key(name), self._owner)
        if until is None:
            raise not_found(name)
        if until < time.time():
            raise expired(name)

    async def jobs(self, *, status: Status | None, most: int, after: str | None) -> JobPage:
        """A page of the owner's jobs; `after` is the cursor of the page before."""
        with unavailable_on_outage():
            told: Any = await self._list(
                keys=record.script_keys(""),
                args=["", self._owner, status or "", most, after or "", _MOST_LOOKED_AT],
            )
        following, *job_ids = told
        return JobPage(job_ids, following or None)

    async def standing(self) -> OwnerUsage:
        """What counts against the limits of the owner's key now."""
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.scard(record.unfinished_key(self._owner))
            pipeline.hget(record.spent_key(self._owner, int(time.time() // DAY_SECONDS)), "work")
            unfinished, spent = await pipeline.execute()
        return OwnerUsage(int(unfinished), float(spent or 0))
