"""Runs the engine in its own thread: commands in, events out.

The thread never uses Redis, so an outage of Redis never stops a step.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from model.engine.protocol import EngineEvent, EngineStats, Failed, Finished, GenerationEngine
from model.errors import ModelError
from model.resolved_request import ResolvedRequest
from worker.runtime.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

_WARM_UP_ID = "warm-up"
_IDLE_SECONDS = 0.5


class WarmUpFailed(RuntimeError):
    """The engine cannot run the warm-up request."""


@dataclass(frozen=True, slots=True)
class _Command:
    """Admit a request; without a request: drop the job's."""

    token: str
    job_id: str
    request: ResolvedRequest | None = None
    owner: str = ""
    weight: float = 1.0


class EngineThread:
    """An engine made by `factory`, and its thread.

    `events` receives (token, event), with the token of `admit`, and None to wake its reader.
    `fault` is the error that ended the thread.
    """

    def __init__(
        self,
        factory: Callable[[], GenerationEngine],
        *,
        warm_up: Sequence[ResolvedRequest],
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self.events: SimpleQueue[tuple[str, EngineEvent] | None] = SimpleQueue()
        self.stats = EngineStats()
        self.busy_seconds = 0.0
        self.description: dict[str, Any] = {}
        self.fault: BaseException | None = None
        self._factory = factory
        self._warm_up_requests = warm_up
        self._metrics = metrics or WorkerMetrics()
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._tokens: dict[str, str] = {}
        self._started_at = math.inf
        self._step_began: float | None = None
        self._is_warm = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread, which makes and runs the engine."""
        self._started_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after its step; waits two seconds at most."""
        self._is_stopping.set()
        self._commands.put(_Command("", ""))
        self._thread.join(timeout=2)

    def admit(
        self,
        token: str,
        job_id: str,
        request: ResolvedRequest,
        *,
        owner: str = "",
        weight: float = 1.0,
    ) -> None:
        """Give the engine a request before its next step, for an owner of this weight."""
        self._commands.put(_Command(token, job_id, request, owner, weight))

    def drop(self, token: str, job_id: str) -> None:
        """Take a request out of the engine before its next step."""
        self._commands.put(_Command(token, job_id))

    def wake(self) -> None:
        """Wake the reader of `events`: something else that it waits for has happened."""
        self.events.put(None)

    @property
    def is_warm(self) -> bool:
        """Whether the engine is loaded and warmed up, and did not fail."""
        return self._is_warm.is_set() and self.fault is None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def load_seconds(self) -> float:
        """For how long the engine has been loading and warming up; 0 before and after."""
        return 0.0 if self.is_warm else max(0.0, time.monotonic() - self._started_at)

    def step_seconds(self) -> float:
        """Age of the present step; 0 between steps."""
        began = self._step_began
        return time.monotonic() - began if began else 0.0

    def _run(self) -> None:
        try:
            engine = self._factory()
            self.description = engine.description()
            self._warm_up(engine)
            self._is_warm.set()
            logger.info("engine ready: %s", self.description)
            while not self._is_stopping.is_set():
                self._run_commands(engine)
                if self._tokens:
                    self._step(engine)
        except BaseException as exc:
            # An error of ours says all in its message.
            trace = None if isinstance(exc, ModelError) else exc
            logger.critical("the engine died: %s", exc, exc_info=trace)
            self.fault = exc

    def _warm_up(self, engine: GenerationEngine) -> None:
        """Run requests one by one, so that no client waits for what is done once."""
        for request in self._warm_up_requests:
            engine.admit(_WARM_UP_ID, request)
            is_running = True
            while is_running and not self._is_stopping.is_set():
                for event in engine.step():
                    if isinstance(event, Failed):
                        raise WarmUpFailed(f"{event.code}: {event.detail}")
                    is_running = is_running and not isinstance(event, Finished)
        self.stats = replace(engine.stats)

    def _run_commands(self, engine: GenerationEngine) -> None:
        """Run all waiting commands; an idle thread waits a moment for one."""
        try:
            command = self._commands.get(block=not self._tokens, timeout=_IDLE_SECONDS)
            while True:
                self._run_command(engine, command)
                command = self._commands.get_nowait()
        except Empty:
            return

    def _run_command(self, engine: GenerationEngine, command: _Command) -> None:
        job_id = command.job_id
        if command.request is not None:
            engine.admit(job_id, command.request, owner=command.owner, weight=command.weight)
            self._tokens[job_id] = command.token
        elif self._tokens.get(job_id) == command.token:
            engine.cancel(job_id)
            del self._tokens[job_id]

    def _step(self, engine: GenerationEngine) -> None:
        began = self._step_began = time.monotonic()
        events = engine.step()
        self._step_began = None
        seconds = time.monotonic() - began
        self.busy_seconds += seconds
        self.stats = replace(engine.stats)
        self._metrics.observe_step(seconds, self.stats)
        for event in events:
            token = self._tokens.get(event.job_id)
            if token is None:
                continue
            if isinstance(event, Finished | Failed):
                del self._tokens[event.job_id]
            self.events.put((token, event))
