"""What becomes of a job whose client leaves: nothing, unless it asked for the end.

A connection that breaks and one that the server closes on its way down look alike at first; only
the first of them is a client that left.
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
"""How often somebody who waits is looked for."""

_tasks: set[asyncio.Task[None]] = set()
"""asyncio itself holds tasks by weak references only."""


async def cancel_abandoned_job(queue: JobQueue, job_id: str) -> Job:
    """Cancel the job of a client that left; the job as it is then."""
    log.info("job=%s event=client_left", job_id)
    with suppress(JobAlreadyFinished):
        return await queue.cancel(job_id)
    return await queue.get(job_id)


async def wait_unless_disconnected(
    request: Request, queue: JobQueue, job: Job, *, seconds: float
) -> Job:
    """The job when it has ended or the time is over; if the client leaves, it is cancelled."""
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
    """Return once the client has hung up."""
    while True:
        if await request.is_disconnected():
            return
        await asyncio.sleep(POLL_SECONDS)


def cancel_if_disconnected(request: Request, queue: JobQueue, job_id: str) -> None:
    """After a stream ended: cancel the job in the background if that was the client's doing."""

    async def look() -> None:
        if await request.is_disconnected():
            with suppress(WorkerError):
                await cancel_abandoned_job(queue, job_id)

    task = asyncio.create_task(look(), name="kirazuri-leaving")
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
