"""A small deterministic engine without a model. Words of the prompt make it misbehave.

At its second step a job with the word `crash` ends the process, `hang` blocks the engine, `raise`
breaks it, `nan` and `flaky` fail, and `until=PATH` blocks the engine until the file exists. With
the word `compiled` it says that compiled code made the images.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from model.engine.protocol import (
    COMPILED,
    EAGER,
    EngineEvent,
    EngineStats,
    Failed,
    Finished,
    Forward,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.request import RequestWarning
from model.resolved_request import ResolvedRequest
from model.workload import total_steps
from tests.support.waiting import wait_until

MISBEHAVIOUR_STEP = 2


class FakeEngine:
    """Advances all admitted jobs together, one step in `step_seconds`."""

    def __init__(
        self,
        *,
        step_seconds: float = 0.01,
        card: str = "fake",
        read_image: Callable[[str], NDArray[numpy.uint8]] | None = None,
    ) -> None:
        self.read_image = read_image
        self.seen: dict[str, tuple[int, ...]] = {}
        self.stats = EngineStats()
        self.step_seconds = step_seconds
        self._card = card
        self.steps_of: dict[str, int] = {}
        self.largest_batch = 0
        self._running: dict[str, tuple[ResolvedRequest, int]] = {}

    def admit(
        self, job_id: str, request: ResolvedRequest, *, owner: str = "", weight: float = 1.0
    ) -> None:
        if job_id in self._running:
            raise ValueError(f"job {job_id} is in the engine already")
        self._running[job_id] = (request, 0)

    def cancel(self, job_id: str) -> None:
        self._running.pop(job_id, None)

    def description(self) -> dict[str, Any]:
        return {"card": self._card, "checkpoint": "0" * 64, "device": "cpu", "precision": "float32"}

    def step(self) -> list[EngineEvent]:
        if not self._running:
            return []
        time.sleep(self.step_seconds)
        self.stats.forwards += 1
        self.stats.evaluations += len(self._running)
        sizes = {(request.width, request.height) for request, _ in self._running.values()}
        self.stats.latest = tuple(
            Forward(width, height, len(self._running), self.step_seconds) for width, height in sizes
        )
        self.largest_batch = max(self.largest_batch, len(self._running))
        events: list[EngineEvent] = []
        for job_id in list(self._running):
            events.extend(self._advance(job_id))
        return events

    def _advance(self, job_id: str) -> list[EngineEvent]:
        request, step = self._running[job_id]
        step += 1
        self._running[job_id] = (request, step)
        self.steps_of[job_id] = self.steps_of.get(job_id, 0) + 1
        events: list[EngineEvent] = []
        if step == 1:
            found = (RequestWarning("prompt_cut", "cut"),) if "long" in request.prompt else ()
            for name in request.inputs:
                assert self.read_image, "this engine reads no images"
                self.seen[name] = self.read_image(name).shape
            path = COMPILED if "compiled" in request.prompt else EAGER
            events.append(Started(job_id, found, 0.001, path))
        if step == MISBEHAVIOUR_STEP:
            failure = self._misbehave(job_id, request)
            if failure:
                del self._running[job_id]
                return [*events, failure]
        events.append(StepDone(job_id, step, request.steps))
        if request.previews:
            events.append(Preview(job_id, 0, step, pixels(request, 0)[::8, ::8]))
        if step >= total_steps(request):
            del self._running[job_id]
            for index in range(request.num_images):
                events.append(
                    ImageReady(job_id, index, request.seed + index, pixels(request, index))
                )
            events.append(Finished(job_id, step * self.step_seconds, 0.001, 1.0))
        return events

    def _misbehave(self, job_id: str, request: ResolvedRequest) -> Failed | None:
        words = request.prompt.split()
        if "crash" in words:
            os._exit(9)
        if "hang" in words:
            time.sleep(600)
        if "raise" in words:
            raise RuntimeError("the engine broke")
        for word in words:
            if word.startswith("until="):
                wait_until(Path(word.removeprefix("until=")).exists, seconds=600)
        if "nan" in words:
            return Failed(job_id, "non_finite", "NaN at sigma 0.5", is_retryable=False)
        if "flaky" in words:
            return Failed(job_id, "engine_error", "a fault that may pass", is_retryable=True)
        return None


def pixels(request: ResolvedRequest, index: int) -> NDArray[numpy.uint8]:
    """Noise that depends only on the request's size and seed, and on the index."""
    random = numpy.random.default_rng(request.seed + index)
    return random.integers(0, 256, (request.height, request.width, 3), dtype=numpy.uint8)
