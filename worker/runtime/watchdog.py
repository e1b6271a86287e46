"""Ends a worker process that cannot go on: only a new process helps.

A hang cannot be interrupted from within Python: a device, a driver or a network disk may hold the
thread in the kernel.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from worker.runtime.engine_thread import EngineThread
from worker.runtime.publisher import Publisher
from worker.settings import Settings

logger = logging.getLogger(__name__)

EXIT_ENGINE_LOST = 70
"""Exit code after the engine died, or a call of engine or store hangs."""

ENDING_SECONDS = 5.0
"""Time for a worker that has signed off to end: its threads, and whatever runs at exit."""


class Watchdog:
    """Watches the engine and the calls to the image store of one worker."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        engine: EngineThread,
        publisher: Publisher,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self._name = name
        self._settings = settings
        self._engine = engine
        self._publisher = publisher
        self._die = die

    def check(self) -> None:
        """End the process if the engine died, or if loading, a step or a file takes too long."""
        engine, settings = self._engine, self._settings
        if not engine.is_alive:
            self._end("engine_lost", f"reason={engine.fault}")
        for event, seconds, limit in (
            ("loading_hangs", engine.load_seconds(), settings.load_seconds),
            ("engine_hangs", engine.step_seconds(), settings.hang_seconds),
            ("publishing_hangs", self._publisher.call_seconds(), settings.hang_seconds),
        ):
            if seconds > limit:
                self._end(event, f"seconds={seconds:.1f}")

    def _end(self, event: str, reason: str) -> None:
        logger.critical("worker=%s event=%s %s", self._name, event, reason)
        self._die(EXIT_ENGINE_LOST)


def end_within(seconds: float) -> None:
    """End this process with exit code 0 if it has not ended by itself after `seconds`.

    Python waits for all threads at exit, and one of them may hang in a call to the image store.
    """

    def end() -> None:
        logger.warning("event=ending_hangs seconds=%.1f: a thread does not end", seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
