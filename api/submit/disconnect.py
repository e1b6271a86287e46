"""Handles client disconnects; cancels the job only if the client asked for it.

Connections also close when the server shuts down. `Request.is_disconnected` tells the two apart.
"""

import asyncio
import logging
from contextlib import suppress

from fastapi import Request

from worker.errors import JobAlreadyFinished, WorkerError
from worker.job import Job
from worker.queue.job_queue import JobQueue

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""How often a waiting call checks that its client is still connected."""

_tasks: set[asyncio.Task[None]] = set()
"""Keeps background tasks alive; asyncio holds only weak references to them."""


async def cancel_abandoned_job(queue: JobQueue, job_id: str) -> Job:
    """Cancel the job of a disconnected client and return its latest state."""
    log.info("job=%s event=client_left", job_id)
    with suppress(JobAlreadyFinished):
        return await queue.cancel(job_id)
    return await queue.get(job_id)


async def wait_unless_disconnected(
    request: Request, queue: JobQueue, job: Job, *, seconds: float
) -> Job:
    """Wait until the job ends, at most `seconds`; cancel it if the client disconnects."""
    waiting = asyncio.ensure_future(queue.wait(job.id, seconds))
    try:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=POLL_SECONDS)
            if await request.is_disconnected():
                return await cancel_abandoned_job(queue, job.id)
        return await waiting
    finally:
        waiting.cancel()


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client has disconnected."""
    while True:
        if await request.is_disconnected():
            return
        await asyncio.sleep(POLL_SECONDS)


def cancel_if_disconnected(request: Request, queue: JobQueue, job_id: str) -> None:
    """After a stream ended: cancel the job in the background if the client disconnected."""

    async def check() -> None:
        if await request.is_disconnected():
            with suppress(WorkerError):
                await cancel_abandoned_job(queue, job_id)

    task = asyncio.create_task(check(), name="kirazuri-check-disconnect")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
