"""One reader of the wake stream for all listeners of a process: who waits for which job."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from worker.queue.record import WAKE
from worker.redis_io.client import connect_async, disconnect, stop_task

logger = logging.getLogger(__name__)

_BLOCK_MS = 1000
_RETRY_SECONDS = 0.5


class Wakeups:
    """Wakes listeners when their job has news; reads with a single connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._reader: asyncio.Task[None] | None = None
        self._is_reading = asyncio.Event()
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def listen(self, job_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set at every news of the job from the moment the block is entered."""
        news = asyncio.Event()
        self._listeners[job_id].add(news)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(), name="kirazuri-wake")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_reading.wait(), _RETRY_SECONDS)
        try:
            yield news
        finally:
            self._listeners[job_id].discard(news)
            if not self._listeners[job_id]:
                del self._listeners[job_id]

    async def close(self) -> None:
        """Stop reading."""
        reader, self._reader = self._reader, None
        self._is_closed = True
        if reader is None:
            return
        await stop_task(reader)
        if not reader.cancelled() and (exc := reader.exception()):
            logger.error("the reader of events had died", exc_info=exc)

    async def _read(self) -> None:
        """Read until cancelled; an outage wakes everybody once, since news may have been missed."""
        client = connect_async(self._url, max_connections=1)
        last: str | None = None
        try:
            while not self._is_closed:
                try:
                    if last is None:
                        newest: Any = await client.xrevrange(WAKE, count=1)
                        last = newest[0][0] if newest else "0-0"
                        self._is_reading.set()
                        self._wake_all()
                    last = self._wake(await client.xread({WAKE: last}, block=_BLOCK_MS), last)
                except (RedisError, OSError) as exc:
                    logger.warning("events are late, Redis does not answer: %s", exc)
                    last = None
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            await disconnect(client)

    def _wake(self, reply: Any, last: str) -> str:
        """Wake the listeners of the jobs in a reply of XREAD; the id to go on from."""
        streams = reply.items() if isinstance(reply, dict) else reply or []
        for _, entries in streams:
            for entry_id, fields in _flat(entries):
                last = entry_id
                for news in self._listeners.get(fields["job"], ()):
                    news.set()
        return last

    def _wake_all(self) -> None:
        for listeners in self._listeners.values():
            for news in listeners:
                news.set()


def _flat(entries: Any) -> Any:
    """RESP3 wraps the entries of a stream in one more list."""
    return entries[0] if entries and isinstance(entries[0], list) else entries
