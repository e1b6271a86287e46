"""Reads and follows the events of jobs in pages, so that a stalled listener costs little memory.

All pages that the listeners of a process ask for at a time are read by one call, on one connection.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from worker.job import TERMINAL, Status
from worker.job_events import TERMINAL_EVENTS, JobEvent
from worker.queue.layout.record import known_status
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.wakeups import Wakeups
from worker.redis_io.client import connect_async, disconnect, is_outage
from worker.telemetry.background import stop_task

PAGE_BYTES = 16_384
"""Maximum size of a page; a longer event has a page to itself."""

_PAGES_AT_ONCE = 64

_STATUS_FIELDS = ("status", "finished", "images", "started")
"""What `read_events` returns about the status."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """The events after the last one that a listener saw.

    `missing` tells that events before the page were trimmed: `start` for a listener that has seen
    none, `gap` for one that has. `replacements` then stand for them.
    """

    status: Status
    owner: str
    newest: str
    missing: Literal["", "start", "gap"]
    events: tuple[JobEvent, ...]
    state: dict[str, Any]

    @property
    def is_end(self) -> bool:
        """Whether the listener has seen the last event of the job."""
        return self.status in TERMINAL and not self.missing and not self.events

    def replacements(self) -> list[JobEvent]:
        """The events that stand for trimmed ones: the gap, if there is one, and the state."""
        if not self.missing:
            return []
        before = self._id_before()
        events = [JobEvent(id=before, event="gap", data={})] if self.missing == "gap" else []
        if self.status not in TERMINAL:
            event: Literal["queued", "started"] = "queued" if self.status == "queued" else "started"
            events.append(JobEvent(id=before, event=event, data=self.state))
        elif not self.events:  # otherwise they contain the end
            events.append(JobEvent(id=self.newest, event=self.status, data=self.state))
        return events

    def _id_before(self) -> str:
        """An id that sorts before the events that the listener has not seen."""
        first = self.events[0].id if self.events else self.newest
        return f"{max(int(first.partition('-')[0]) - 1, 0)}-0"


class EventReader:
    """Reads pages for all listeners of a process. Raises the errors of Redis."""

    def __init__(self, url: str) -> None:
        self._redis = connect_async(url, max_connections=1)
        self._read_events = LuaScript(self._redis, "read_events")
        self._pending: dict[tuple[str, str], asyncio.Future[EventPage | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Close the connection and cancel all who wait for a page."""
        if self._reading is not None:
            await stop_task(self._reading)
        await disconnect(self._redis)

    async def read(self, job_id: str, after: str | None) -> EventPage | None:
        """The page after the event with id `after`; None if there is no such job.

        Listeners that ask for the same page share it.
        """
        key = (job_id, after or "")
        page = self._pending.get(key)
        if page is None:
            page = self._pending[key] = asyncio.get_running_loop().create_future()
            page.add_done_callback(lambda done: done.cancelled() or done.exception())
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_all(), name="kirazuri-pages")
        return await asyncio.shield(page)  # others may wait for it too

    async def _read_all(self) -> None:
        """Read until nothing is asked for."""
        while self._pending:
            # A request that comes after this is not part of the round trip.
            keys = list(self._pending)[:_PAGES_AT_ONCE]
            pages = [self._pending.pop(key) for key in keys]
            try:
                found = await self._read_pages(keys)
            except asyncio.CancelledError:
                for page in (*pages, *self._pending.values()):
                    page.cancel()
                raise
            for page, read in zip(pages, found, strict=True):
                if isinstance(read, Exception):
                    page.set_exception(read)
                else:
                    page.set_result(read)

    async def _read_pages(
        self, keys: Sequence[tuple[str, str]]
    ) -> list[EventPage | Exception | None]:
        """The pages in one call, or one by one: a page that cannot be read breaks no other."""
        try:
            reply = await self._read_events("", PAGE_BYTES, *chain.from_iterable(keys))
            return [_parse_page(page) for page in reply]
        except Exception as exc:  # noqa: BLE001 - it is the result of a page
            if len(keys) == 1 or is_outage(exc):
                return [exc for _ in keys]
        return [page for key in keys for page in await self._read_pages([key])]


def _parse_page(reply: list[Any]) -> EventPage | None:
    if not reply:
        return None
    state_fields, owner, newest, missing, entries, state = reply
    status = known_status(dict(zip(_STATUS_FIELDS, state_fields, strict=True)))
    events = tuple(
        JobEvent(id=event_id, event=event, data=parsed(data, dict))
        for event_id, event, data in entries
    )
    return EventPage(status, owner, newest, missing, events, _state(status, state) if state else {})


def parsed(text: str | None, kind: type[Any]) -> Any:
    """A JSON value of this kind; an empty one if there is none, as after another release."""
    try:
        value = json.loads(text or "null")
    except ValueError:
        value = None
    return value if isinstance(value, kind) else kind()


def _state(status: Status, fields: list[str | None]) -> dict[str, Any]:
    """The data of the event that led to a job's state."""
    attempt, worker, images, error = fields
    match status:
        case "running":
            return {"attempt": parsed(attempt, int), "worker": worker}
        case "succeeded":
            return {"images": parsed(images, list)}
        case "failed" if error:
            return {"error": parsed(error, dict)}
        case _:
            return {}


class RecordMissing(LookupError):
    """There is no record of the job."""


async def follow(
    reader: EventReader,
    wakeups: Wakeups,
    job_id: str,
    *,
    after: str | None,
    owner: str | None,
    pause: float,
) -> AsyncGenerator[list[JobEvent]]:
    """The events after the one with id `after`, then live ones, up to the end, page by page.

    Yields an empty page after every `pause` seconds without an event. Events that were trimmed
    before the listener read them are skipped; a gap and the current state stand for them.

    Raises:
        RecordMissing: there is no such job, or it is another owner's; an `owner` of None sees all.
    """
    seen = after
    async with wakeups.listen(job_id) as wakeup:
        while True:
            wakeup.clear()
            page = await reader.read(job_id, seen)
            if page is None or owner not in (None, page.owner):
                raise RecordMissing(job_id)
            events = [*page.replacements(), *page.events]
            if events:
                yield events
            if page.is_end or any(event.event in TERMINAL_EVENTS for event in events):
                return
            if page.events:
                seen = page.events[-1].id
            elif page.missing:
                seen = page.newest
            if seen == page.newest:
                try:
                    async with asyncio.timeout(pause):
                        await wakeup.wait()
                except TimeoutError:
                    yield []
