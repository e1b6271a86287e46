"""A job's events as a listener hears them: in pages, so that one who stops reading costs nothing.

What all listeners of a process ask for at a time is read in one round trip, on one connection.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal

from worker.job import TERMINAL, Status
from worker.job_events import TERMINAL_EVENTS, JobEvent
from worker.queue import record
from worker.queue.wakeups import Wakeups
from worker.redis_io.client import connect_async, disconnect, stop_task

PAGE_BYTES = 16_384
"""Of a job's history a listener keeps so much in memory, or one event that is longer."""

_PAGES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class EventPage:
    """What follows the event that a listener saw last, as far as it was read.

    `missing` says that something before it is gone: the `start`, for a listener that has seen
    nothing, or what lies in the `gap` after the last event seen. `instead` then tells it.
    """

    status: Status
    owner: str
    newest: str
    missing: Literal["", "start", "gap"]
    events: tuple[JobEvent, ...]
    state: dict[str, Any]

    @property
    def is_end(self) -> bool:
        """Whether the listener has seen all there will ever be."""
        return self.status in TERMINAL and not self.missing and not self.events

    def instead(self) -> list[JobEvent]:
        """What a listener is told where events are gone: that there is a gap, and how it is now."""
        if not self.missing:
            return []
        before = self._id_before()
        told = [JobEvent(id=before, event="gap", data={})] if self.missing == "gap" else []
        if self.status not in TERMINAL:
            event: Literal["queued", "started"] = "queued" if self.status == "queued" else "started"
            told.append(JobEvent(id=before, event=event, data=self.state))
        elif not self.events:  # else the end is among those that are kept
            told.append(JobEvent(id=self.newest, event=self.status, data=self.state))
        return told

    def _id_before(self) -> str:
        """An id that sorts before everything the listener has still to see."""
        first = self.events[0].id if self.events else self.newest
        return f"{max(int(first.partition('-')[0]) - 1, 0)}-0"


class EventReader:
    """Reads pages for all listeners of a process. Errors are those of Redis."""

    def __init__(self, url: str) -> None:
        self._redis = connect_async(url, max_connections=1)
        self._script = self._redis.register_script(record.script("page"))
        self._asked: dict[tuple[str, str], asyncio.Future[EventPage | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Let go of the connection; whoever still waits for a page is cancelled."""
        if self._reading is not None:
            await stop_task(self._reading)
        await disconnect(self._redis)

    async def read(self, job_id: str, after: str | None) -> EventPage | None:
        """The page after the event with id `after`; None where there is no such job.

        Listeners that ask for the same are given the same page.
        """
        key = (job_id, after or "")
        page = self._asked.get(key)
        if page is None:
            page = self._asked[key] = asyncio.get_running_loop().create_future()
            page.add_done_callback(lambda done: done.cancelled() or done.exception())
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_all(), name="kirazuri-pages")
        return await asyncio.shield(page)  # others may wait for it too

    async def _read_all(self) -> None:
        """Read until nothing is asked for."""
        while self._asked:
            # Whoever asks from here on asks for what is not on its way yet.
            keys = list(self._asked)[:_PAGES_AT_ONCE]
            pages = [self._asked.pop(key) for key in keys]
            try:
                replies = await self._replies(keys)
            except BaseException as exc:
                is_cancelled = isinstance(exc, asyncio.CancelledError)
                for page in (*pages, *(self._asked.values() if is_cancelled else ())):
                    page.cancel() if is_cancelled else page.set_exception(exc)
                if not isinstance(exc, Exception):
                    raise
            else:
                for page, reply in zip(pages, replies, strict=True):
                    page.set_result(_read_page(reply))

    async def _replies(self, keys: list[tuple[str, str]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job_id, after in keys:
                await self._script(
                    keys=record.script_keys(job_id),
                    args=[job_id, after, PAGE_BYTES],
                    client=pipeline,
                )
            return list(await pipeline.execute())


def _read_page(reply: list[Any]) -> EventPage | None:
    if not reply:
        return None
    status, owner, newest, missing, entries, state = reply
    events = tuple(
        JobEvent(id=event_id, event=event, data=json.loads(data))
        for event_id, event, data in entries
    )
    return EventPage(status, owner, newest, missing, events, _state(status, state) if state else {})


def _state(status: Status, fields: list[str | None]) -> dict[str, Any]:
    """The data of the event that would tell the state a job is in."""
    attempt, worker, images, error = fields
    match status:
        case "running":
            return {"attempt": int(attempt or 0), "worker": worker}
        case "succeeded":
            return {"images": json.loads(images or "[]")}
        case "failed" if error:
            return {"error": json.loads(error)}
        case _:
            return {}


class RecordMissing(LookupError):
    """There is no record of the job (any more)."""


async def follow(
    pages: EventReader,
    hub: Wakeups,
    job_id: str,
    *,
    after: str | None,
    owner: str | None,
    pause: float,
) -> AsyncGenerator[JobEvent | None]:
    """The events after the one with id `after`, then live ones, up to the end.

    Yields None whenever there was no news for `pause` seconds. What was trimmed while the listener
    did something else is skipped: it is told of the gap and of how the job is now.

    Raises:
        Missing: there is no such job (any more), or not of this owner; None sees all.
    """
    seen = after
    async with hub.listen(job_id) as news:
        while True:
            news.clear()
            page = await pages.read(job_id, seen)
            if page is None or owner not in (None, page.owner):
                raise RecordMissing(job_id)
            for event in (*page.instead(), *page.events):
                yield event
                if event.event in TERMINAL_EVENTS:
                    return
            if page.is_end:
                return
            if page.events:
                seen = page.events[-1].id
            elif page.missing:
                seen = page.newest
            if seen == page.newest:
                try:
                    await asyncio.wait_for(news.wait(), pause)
                except TimeoutError:
                    yield None
