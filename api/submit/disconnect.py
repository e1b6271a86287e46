"""Handles clients that disconnect; cancels the job only if the client asked for it.

ASGI reports a disconnect as a message. A server that stops cancels the request instead, so it never
looks like a client that left.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request

from worker.errors import JobAlreadyFinished, WorkerError
from worker.job import Job
from worker.queue.job_queue import JobQueue

T = TypeVar("T")

log = logging.getLogger(__name__)

_tasks: set[asyncio.Task[None]] = set()
"""Keeps background tasks alive; asyncio holds only weak references to them."""


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None if the client disconnects first, which ends the work.

    The body of the request must have been read.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def cancel_abandoned_job(queue: JobQueue, job_id: str) -> Job:
    """Cancel the job of a disconnected client and return its latest state."""
    log.info("job=%s event=client_left", job_id)
    with suppress(JobAlreadyFinished):
        return await queue.cancel(job_id)
    return await queue.get(job_id)


def cancel_in_background(queue: JobQueue, job_id: str) -> None:
    """Cancel the job of a client that left its stream; the request itself ends now."""

    async def cancel() -> None:
        with suppress(WorkerError):
            await cancel_abandoned_job(queue, job_id)

    task = asyncio.create_task(cancel(), name="kirazuri-cancel-abandoned")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
