"""The thread that owns the engine: orders in, events out, nothing else shared.

Never touches Redis, so that an outage never stops a step; tells when it hangs or died.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from model.engine.protocol import EngineEvent, EngineStats, Failed, Finished, GenerationEngine
from model.resolved_request import ResolvedRequest
from worker.runtime.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

_WARM_UP_ID = "warm-up"
_IDLE_SECONDS = 0.5


class WarmUpFailed(RuntimeError):
    """The engine cannot carry out the request that it was tried with."""


@dataclass(frozen=True, slots=True)
class _Command:
    """Take a request in, or forget it where there is none."""

    token: str
    job_id: str
    request: ResolvedRequest | None = None
    owner: str = ""
    weight: float = 1.0


class EngineThread:
    """Runs an engine made by `factory`.

    `events` yields (token of the admission, event).
    """

    def __init__(
        self,
        factory: Callable[[], GenerationEngine],
        *,
        warm_up: ResolvedRequest | None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self.events: SimpleQueue[tuple[str, EngineEvent]] = SimpleQueue()
        self.stats = EngineStats()
        self.busy_seconds = 0.0
        self.description: dict[str, Any] = {}
        self.fault: BaseException | None = None
        self._factory = factory
        self._warm_up_request = warm_up
        self._metrics = metrics or WorkerMetrics()
        self._orders: SimpleQueue[_Command] = SimpleQueue()
        self._tokens: dict[str, str] = {}
        self._step_began: float | None = None
        self._is_warm = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Make the engine and let it run."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after its step; it is a daemon and not waited for long."""
        self._is_stopping.set()
        self._orders.put(_Command("", ""))
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
        """Order a request to be taken in with the next step, for an owner of this weight."""
        self._orders.put(_Command(token, job_id, request, owner, weight))

    def drop(self, token: str, job_id: str) -> None:
        """Order a request to be forgotten before the next step."""
        self._orders.put(_Command(token, job_id))

    @property
    def is_warm(self) -> bool:
        """Whether the engine carries out requests: loaded, tried once, not broken."""
        return self._is_warm.is_set() and self.fault is None

    @property
    def is_alive(self) -> bool:
        """False once the thread ended, by an error or by itself."""
        return self._thread.is_alive()

    def step_seconds(self) -> float:
        """For how long the present step has been going on; 0 between steps."""
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
                self._obey(engine)
                if self._tokens:
                    self._step(engine)
        except BaseException as exc:
            logger.critical("the engine died", exc_info=exc)
            self.fault = exc

    def _warm_up(self, engine: GenerationEngine) -> None:
        """Carry out one request, so that the first client does not wait for lazy parts."""
        if self._warm_up_request is None:
            return
        engine.admit(_WARM_UP_ID, self._warm_up_request)
        while not self._is_stopping.is_set():
            for event in engine.step():
                if isinstance(event, Failed):
                    raise WarmUpFailed(f"{event.code}: {event.detail}")
                if isinstance(event, Finished):
                    return

    def _obey(self, engine: GenerationEngine) -> None:
        """Carry out all orders; wait for one where there is nothing else to do."""
        try:
            order = self._orders.get(block=not self._tokens, timeout=_IDLE_SECONDS)
            while True:
                self._carry_out(engine, order)
                order = self._orders.get_nowait()
        except Empty:
            return

    def _carry_out(self, engine: GenerationEngine, order: "_Command") -> None:
        if order.request is not None:
            engine.admit(order.job_id, order.request, owner=order.owner, weight=order.weight)
            self._tokens[order.job_id] = order.token
        elif self._tokens.get(order.job_id) == order.token:
            engine.cancel(order.job_id)
            del self._tokens[order.job_id]

    def _step(self, engine: GenerationEngine) -> None:
        began = self._step_began = time.monotonic()
        events = engine.step()
        self._step_began = None
        seconds = time.monotonic() - began
        self.busy_seconds += seconds
        self.stats = replace(engine.stats)
        self._metrics.engine_step(seconds, self.stats)
        for event in events:
            token = self._tokens.get(event.job_id)
            if token is None:
                continue
            if isinstance(event, Finished | Failed):
                del self._tokens[event.job_id]
            self.events.put((token, event))
