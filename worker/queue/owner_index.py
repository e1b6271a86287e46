"""Reads what an owner has: images by name, jobs newest first, and usage of the key's limits."""

import copy
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from worker.errors import DAY_SECONDS, ImageExpired, ImageLost, ImageNotFound
from worker.job import Status
from worker.queue.layout import redis_keys
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.client import unavailable_on_outage
from worker.store.image_store import image_expired, image_not_found, is_image_name

_MAX_SCANNED = 1000
"""Jobs that one call looks at; a page of a rare status may be shorter than its limit."""

_SCANNED_AT_ONCE = 500


class JobPage(NamedTuple):
    """Ids of jobs, newest first, and the cursor of the next page; None on the last one."""

    job_ids: list[str]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class OwnerUsage:
    """The number of an owner's unfinished jobs, and the work accepted today in megapixel-steps."""

    unfinished: int
    spent: float


class OldRecords:
    """Adds the jobs of older releases, which kept no lists, to the lists of their owners."""

    def __init__(self, connection: "BlockingRedis") -> None:
        self._redis = connection
        self._index_jobs = LuaScript(connection, "index_jobs")
        self._cursor: int | None = None

    def index_page(self) -> bool:
        """Add the next page; False when there is none, now or ever.

        An interrupted search begins again. It may be repeated, also at the same time.
        """
        if self._cursor is None:
            if self._redis.exists(redis_keys.INDEXED):
                return False
            self._cursor = 0
        prefix = redis_keys.PREFIXES["job"]
        found: Any = self._redis.scan(self._cursor, match=f"{prefix}*", count=_SCANNED_AT_ONCE)
        self._cursor, keys = found
        if keys:
            self._index_jobs("", *(key.decode().removeprefix(prefix) for key in keys))
        if self._cursor == 0:
            self._redis.set(redis_keys.INDEXED, 1)
            self._cursor = None
        return self._cursor is not None


class OwnerIndex:
    """What one owner has. Every method may raise QueueUnavailable."""

    def __init__(self, client: Redis, owner: str) -> None:
        self._redis = client
        self._owner = owner
        self._list_jobs = LuaScript(client, "list_jobs")

    def owned_by(self, owner: str) -> "OwnerIndex":
        """The same for another owner."""
        narrowed = copy.copy(self)
        narrowed._owner = owner
        return narrowed

    async def check_image(self, name: str) -> None:
        """Check that the owner may see an image: a job of theirs made it or starts from it.

        Raises:
            ImageNotFound: none does; with the same message as for an image that does not exist.
            ImageExpired: the last of these jobs has expired.
        """
        if not is_image_name(name):
            raise image_not_found(name)
        with unavailable_on_outage():
            until: Any = await self._redis.zscore(redis_keys.owners_key(name), self._owner)
        if until is None:
            raise image_not_found(name)
        if until < time.time():
            raise image_expired(name)

    async def missing_image(self, name: str) -> ImageNotFound | ImageExpired:
        """The error for an image that the store does not have, although the owner may see it."""
        try:
            await self.check_image(name)
        except (ImageNotFound, ImageExpired) as exc:
            return exc
        return ImageLost(f"image {name} is no longer in the store")

    async def jobs(self, *, status: Status | None, limit: int, after: str | None) -> JobPage:
        """A page of the owner's jobs; `after` is the cursor of the page before."""
        with unavailable_on_outage():
            cursor, *job_ids = await self._list_jobs(
                "", self._owner, status or "", limit, after or "", _MAX_SCANNED
            )
        return JobPage(job_ids, cursor or None)

    async def usage(self) -> OwnerUsage:
        """What counts against the limits of the owner's key now."""
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.scard(redis_keys.unfinished_key(self._owner))
            pipeline.hget(
                redis_keys.spent_key(self._owner, int(time.time() // DAY_SECONDS)), "work"
            )
            unfinished, spent = await pipeline.execute()
        return OwnerUsage(int(unfinished), float(spent or 0))
