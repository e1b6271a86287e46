"""Reads what an owner has: images by name, jobs newest first, and usage of the key's limits."""

import copy
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from worker.errors import DAY_SECONDS, ImageDeleted, ImageExpired, ImageLost, ImageNotFound
from worker.job import Status
from worker.queue.image_removal import MEMORY_SECONDS, RETRY_SECONDS
from worker.queue.layout import redis_keys
from worker.queue.layout.tolerant import shared_number
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.client import unavailable_on_outage
from worker.store.image_store import image_expired, image_not_found, is_image_name

_MAX_SCANNED = 1000
"""Jobs that one call looks at; a page of a rare status may be shorter than its limit."""

_SCANNED_AT_ONCE = 500

_DELETED = -1
"""What an owner who deleted an image has in place of a time (owner.lua)."""


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
        self._delete_image = LuaScript(client, "delete_image")
        self._end_removal = LuaScript(client, "end_removal")

    def owned_by(self, owner: str) -> "OwnerIndex":
        """The same for another owner."""
        narrowed = copy.copy(self)
        narrowed._owner = owner
        return narrowed

    async def check_image(self, name: str) -> None:
        """Check that the owner may see an image: a job of theirs made it or starts from it.

        Raises:
            ImageNotFound: none does; with the same message as for an image that does not exist.
            ImageDeleted: the owner deleted it.
            ImageExpired: the last of these jobs has expired.
        """
        if not is_image_name(name):
            raise image_not_found(name)
        with unavailable_on_outage():
            until: Any = await self._redis.zscore(redis_keys.owners_key(name), self._owner)
        if until is None:
            raise image_not_found(name)
        if until == _DELETED:
            raise ImageDeleted(f"image {name} was deleted by its owner")
        if until < time.time():
            raise image_expired(name)

    async def missing_image(
        self, name: str, found: ImageNotFound | ImageExpired
    ) -> ImageNotFound | ImageExpired:
        """Why the store does not have an image that the owner may see; `found` is its own error."""
        try:
            await self.check_image(name)
        except (ImageNotFound, ImageExpired) as exc:
            is_more = isinstance(exc, ImageDeleted) or not isinstance(found, ImageExpired)
            return exc if is_more else found
        if isinstance(found, ImageExpired):
            return found
        return ImageLost(f"image {name} is no longer in the store")

    async def delete_image(self, name: str) -> bool:
        """Delete an image for the owner; a second time changes nothing.

        Returns whether to delete its bytes and call `end_removal`: nobody else has this image. If
        that is not done, a worker does it a minute later.

        Raises:
            ImageNotFound: no job of the owner made it or starts from it.
            ImageExpired: the last of these jobs has expired.
        """
        if not is_image_name(name):
            raise image_not_found(name)
        with unavailable_on_outage():
            outcome: str = await self._delete_image("", name, self._owner)
        if outcome == "unknown":
            raise image_not_found(name)
        if outcome == "expired":
            raise image_expired(name)
        return outcome == "remove"

    async def end_removal(self, name: str) -> None:
        """Record that the bytes of an image were deleted."""
        with unavailable_on_outage():
            await self._end_removal("", MEMORY_SECONDS, RETRY_SECONDS, 1, name)

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
        return OwnerUsage(int(unfinished), shared_number("spent work", spent))
