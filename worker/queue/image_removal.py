"""Decides which stored images are deleted, so that no job loses an image it needs."""

from collections.abc import Sequence
from typing import Any

from redis import Redis

from worker.queue.layout import redis_keys
from worker.queue.scripts.lua_script import LuaScript

_BATCH = 100
RETRY_SECONDS = 60
"""A removal that takes longer was interrupted, and is repeated."""

MEMORY_SECONDS = 3600
"""Removals stay on record for this long."""


class ImageRemoval:
    """Removals of images, on record from before the first byte is deleted."""

    def __init__(self, connection: "Redis") -> None:
        self._redis = connection
        self._begin = LuaScript(connection, "begin_removal")
        self._end = LuaScript(connection, "end_removal")

    def begin(self, orphans: Sequence[str] = ()) -> list[str]:
        """Names of images to delete now: up to 100 expired ones, and unknown ones of `orphans`.

        An image that an unfinished job starts from is not among them. Call `end` when they are
        deleted: until then, a worker that makes the same image stores it again.
        """
        names: Any = self._begin("", _BATCH, RETRY_SECONDS, *orphans)
        return [str(name, "utf-8") for name in names]

    def end(self, touched: Sequence[str], later: Sequence[str] = ()) -> None:
        """Record that the `touched` images may be deleted; those of `later` are tried again."""
        self._end("", MEMORY_SECONDS, RETRY_SECONDS, len(touched), *touched, *later)

    def start_orphan_search(self, *, every: int) -> bool:
        """Whether this worker is to search for orphans: none has done so for `every` seconds."""
        return bool(self._redis.set(redis_keys.ORPHAN_SEARCH, 1, nx=True, ex=every))
