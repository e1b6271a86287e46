"""Runs work beside the step loop, so that no step waits for it: prompts, input images, pixels."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from model.engine.protocol import EngineEvent
from model.engine.running_request import RunningRequest

_T = TypeVar("_T")


class Beside(Protocol):
    """Runs one piece of work after the other."""

    def submit(self, work: Callable[[], _T], *inputs: Tensor) -> "Future[_T]":
        """Run `work` when the tensors that it reads are computed."""


class AtOnce:
    """Runs work in the thread of its caller, before `submit` returns."""

    def submit(self, work: Callable[[], _T], *inputs: Tensor) -> "Future[_T]":
        """Run `work` now."""
        future: Future[_T] = Future()
        try:
            future.set_result(work())
        except Exception as exc:  # noqa: BLE001 - as an executor does
            future.set_exception(exc)
        return future


class SideThread:
    """A thread, and on a GPU a stream of its own, so that kernels overlap with those of a step."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def submit(self, work: Callable[[], _T], *inputs: Tensor) -> "Future[_T]":
        """Run `work` in the thread. Its result is complete on the device when the future is."""
        if self._stream is None:
            return self._pool.submit(torch.inference_mode()(work))
        ready = torch.cuda.current_stream(self._stream.device).record_event()
        for tensor in inputs:
            tensor.record_stream(self._stream)
        return self._pool.submit(self._on_stream, work, ready, self._stream)

    @staticmethod
    @torch.inference_mode()
    def _on_stream(
        work: Callable[[], _T], ready: torch.cuda.Event, stream: torch.cuda.Stream
    ) -> _T:
        with torch.cuda.stream(stream):
            stream.wait_event(ready)
            result = work()
            stream.synchronize()
        return result


@dataclass(frozen=True, slots=True, eq=False)
class SideTask:
    """Work for a request beside the steps. `use` takes its result in the engine's thread.

    It is used after so many forwards are known to be finite.
    """

    job_id: str
    running: RunningRequest
    future: "Future[Any]"
    use: Callable[[list[EngineEvent], Any], None]
    after: int


class SideTasks:
    """The work of all requests that runs beside the steps."""

    def __init__(self) -> None:
        self._tasks: list[SideTask] = []

    def futures(self) -> "Sequence[Future[Any]]":
        """All of it, to wait for."""
        return [task.future for task in self._tasks]

    def add(self, task: SideTask) -> None:
        """Add work that has begun."""
        self._tasks.append(task)

    def take(self, *, confirmed: int) -> Sequence[SideTask]:
        """Remove and return what has ended and may be used after so many confirmed forwards."""
        ended = [one for one in self._tasks if one.future.done() and one.after <= confirmed]
        self._tasks = [one for one in self._tasks if one not in ended]
        return ended


def timed(work: Callable[..., _T], *values: Any) -> tuple[_T, float]:
    """The result of some work, and its seconds."""
    began = time.perf_counter()
    return work(*values), time.perf_counter() - began
