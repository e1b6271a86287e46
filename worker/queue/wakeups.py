"""Wakes the listeners of a process when their job has news, with one reader for all of them.

The reader also says in Redis that the process is alive.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from ulid import ULID

from worker.queue.layout.redis_keys import WAITER_MS, WAKE, waiter_key
from worker.redis_io.client import connect_async, disconnect, is_outage
from worker.telemetry.background import BackgroundTask

logger = logging.getLogger(__name__)

_BLOCK_MS = 1000
_RETRY_SECONDS = 0.5
_ALIVE_SECONDS = 0.5
"""Pause between two signs of life, if news arrive so often."""


class Wakeups:
    """The listeners of a process; one connection reads for all of them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._reader = BackgroundTask("wake", self._read)
        self._is_reading = asyncio.Event()
        self.process = str(ULID())
        """Names this process while it waits for jobs."""
        self._said_alive = 0.0

    @contextlib.asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the job has news, from the start of the block."""
        wakeup = asyncio.Event()
        self._listeners[job_id].add(wakeup)
        self._reader.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_SECONDS):
                await self._is_reading.wait()
        try:
            yield wakeup
        finally:
            self._listeners[job_id].discard(wakeup)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    async def close(self) -> None:
        """Stop reading and close the connection; calls that still wait have ended."""
        await self._reader.stop()
        if self._said_alive:
            client = connect_async(self._url, max_connections=1)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await client.delete(waiter_key(self.process))
            await disconnect(client)

    async def _read(self) -> None:
        """Read until cancelled; wakes all listeners after an outage, which may have hidden news."""
        client = connect_async(self._url, max_connections=1)
        last: str | None = None
        try:
            while True:
                try:
                    if last is None:
                        newest: Any = await client.xrevrange(WAKE, count=1)
                        last = newest[0][0] if newest else "0-0"
                        self._is_reading.set()
                        self._wake_all()
                    await self._say_alive(client)
                    last = self._wake(await client.xread({WAKE: last}, block=_BLOCK_MS), last)
                except (RedisError, OSError) as exc:
                    if not is_outage(exc):
                        raise
                    logger.warning("events are late, Redis does not answer: %s", exc)
                    last = None
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await disconnect(client)

    async def _say_alive(self, client: Redis) -> None:
        now = time.monotonic()
        if now - self._said_alive >= _ALIVE_SECONDS:
            self._said_alive = now
            with contextlib.suppress(ResponseError):  # a full Redis takes no new keys
                await client.set(waiter_key(self.process), "1", px=WAITER_MS)

    def _wake(self, reply: Any, last: str) -> str:
        """Wake the listeners of the jobs in a reply of XREAD; returns the id of its last entry."""
        streams = reply.items() if isinstance(reply, dict) else reply or []
        for _, entries in streams:
            for entry_id, fields in _flat(entries):
                last = entry_id
                for wakeup in self._listeners.get(fields["job"], ()):
                    wakeup.set()
        return last

    def _wake_all(self) -> None:
        for listeners in self._listeners.values():
            for wakeup in listeners:
                wakeup.set()


def _flat(entries: Any) -> Any:
    """The entries of a stream; RESP3 wraps them in one more list."""
    return entries[0] if entries and isinstance(entries[0], list) else entries
