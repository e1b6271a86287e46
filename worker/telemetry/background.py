"""Runs background tasks of a process: one that fails is logged, counted and started again."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)

FAILURES: Counter[str] = Counter()
"""How often each background task of this process has failed, by its name; 0 until it fails."""

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
_CANCEL_AGAIN_SECONDS = 0.2


class BackgroundTask:
    """Runs `work`, which never returns by itself, until `stop`.

    After a failure it starts again: at first soon, then after increasing pauses.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Start the task, unless it runs or was stopped."""
        if self._task is None and not self._is_stopped:
            FAILURES[self._name] += 0
            self._task = asyncio.create_task(self._run(), name=f"kirazuri-{self._name}")

    async def stop(self) -> None:
        """End the task for good and wait for its end."""
        self._is_stopped = True
        if self._task is not None:
            await stop_task(self._task)

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._is_stopped:
            began = time.monotonic()
            error: BaseException | None = None
            try:
                await self._work()
            except (Exception, asyncio.CancelledError) as exc:
                # A cancel may also come from inside, if what the task waits for is cancelled.
                if self._is_stopped:
                    raise
                error = exc
            FAILURES[self._name] += 1
            if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            message = "event=background_task_failed task=%s again_in=%.1fs"
            log.error(message, self._name, pause, exc_info=error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


async def stop_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end.

    Repeats the cancel: redis-py sends within `asyncio.wait_for`, which before Python 3.12 swallows
    a cancel that arrives just as the sending ends.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_SECONDS)
