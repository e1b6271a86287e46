"""The type of the fixture `run_worker`: a control loop in a thread, with a fake engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from tests.support.waiting import async_wait_until
from worker.queue.job_queue import JobQueue
from worker.runtime.batch_worker import BatchWorker

RunWorker = Callable[..., AbstractContextManager[BatchWorker]]


class Died(Exception):
    """Stands for the end of the process."""


def die(code: int) -> None:
    """Takes the place of `os._exit`."""
    raise Died(code)


async def await_heartbeats(queue: JobQueue) -> None:
    """Wait for two more heartbeats of the only worker: its loop has made several rounds."""
    for _ in range(2):
        before = [worker.seen_at for worker in await queue.state.workers()]

        async def has_changed(before: list[datetime] = before) -> bool:
            return [worker.seen_at for worker in await queue.state.workers()] not in ([], before)

        await async_wait_until(has_changed)
