"""The engine's face: what goes in, what comes out. No tensors, no queue."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from model.request import RequestWarning, ResolvedRequest


@dataclass(frozen=True, slots=True)
class Started:
    """The prompts are encoded; sampling begins. `seconds` is the time of encoding.

    `at` is when that was, by `time.time_ns()`.
    """

    job_id: str
    warnings: tuple[RequestWarning, ...]
    seconds: float
    at: int = field(default_factory=time.time_ns, compare=False)


@dataclass(frozen=True, slots=True)
class StepDone:
    """`step` of `steps` are done, for the image of the job that is furthest behind."""

    job_id: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    """How picture `index` of a job looks by now: (height / 8, width / 8, 3) uint8 RGB."""

    job_id: str
    index: int
    step: int
    pixels: NDArray[numpy.uint8]


@dataclass(frozen=True, slots=True)
class ImageReady:
    """Picture `index` of a job: `pixels` is (height, width, 3) uint8 RGB.

    `seconds` is the time of decoding, `at` its end by `time.time_ns()`.
    """

    job_id: str
    index: int
    seed: int
    pixels: NDArray[numpy.uint8]
    seconds: float = 0.0
    at: int = field(default_factory=time.time_ns, compare=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """All pictures of a job have been handed out; times in seconds of wall clock."""

    job_id: str
    denoise_seconds: float
    decode_seconds: float
    mean_batch: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The request cannot be carried out. `is_retryable` says whether another try may help."""

    job_id: str
    code: str
    detail: str
    is_retryable: bool


EngineEvent = Started | StepDone | Preview | ImageReady | Finished | Failed


@dataclass(frozen=True, slots=True)
class Forward:
    """One model call for `images` pictures of this size in pixels; seconds of wall clock."""

    width: int
    height: int
    images: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a GPU: allocated and reserved by this process, free for all, and its size."""

    device: str
    allocated: int
    reserved: int
    free: int
    size: int


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made; evaluations / forwards is the mean batch size.

    `shortages` counts forwards that did not fit into the device's memory. `latest` are the model
    calls of the latest step alone; `memory` is None where the device is no GPU.
    """

    forwards: int = 0
    evaluations: int = 0
    rows: int = 0
    forward_seconds: float = 0.0
    shortages: int = 0
    latest: tuple[Forward, ...] = ()
    memory: DeviceMemory | None = None


class GenerationEngine(Protocol):
    """Runs many requests at once, one model evaluation per step. Not thread-safe: one owner."""

    stats: EngineStats

    def admit(
        self, job_id: str, request: ResolvedRequest, *, owner: str = "", weight: float = 1.0
    ) -> None:
        """Take a request in; its work starts with the next step. ValueError on a known id.

        Owners share the steps by their weights.
        """

    def step(self) -> list[EngineEvent]:
        """Evaluate the model once for a batch; [] when nothing is admitted."""

    def cancel(self, job_id: str) -> None:
        """Forget a request at once; unknown ids are ignored. No event follows."""

    def description(self) -> dict[str, Any]:
        """What runs here, for logs and `/capabilities`: checkpoint hash, device, precision."""
