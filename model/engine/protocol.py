"""Defines the engine's interface: its methods, events and statistics. No tensors, no queue."""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from model.request import RequestWarning
from model.resolved_request import ResolvedRequest

EAGER, COMPILED = "eager", "compiled"
FLOAT8, COMPILED_FLOAT8 = "float8", "compiled float8"
"""The paths by which a picture can be computed. They round differently: the first two in the last
bits, the others visibly."""


@dataclass(frozen=True, slots=True)
class Started:
    """The prompts are encoded and sampling begins.

    `seconds` is how long encoding took, `at` its end by `time.time_ns()`. All forwards of the
    pictures take the same `path`.
    """

    job_id: str
    warnings: tuple[RequestWarning, ...]
    seconds: float
    path: str = EAGER
    at: int = field(default_factory=time.time_ns, compare=False)


@dataclass(frozen=True, slots=True)
class StepDone:
    """`step` of `steps` are done for the job's image that is furthest behind."""

    job_id: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview of image `index` of a job: `pixels` is (height / 8, width / 8, 3) uint8 RGB."""

    job_id: str
    index: int
    step: int
    pixels: NDArray[numpy.uint8]


@dataclass(frozen=True, slots=True)
class ImageReady:
    """Image `index` of a job is complete: `pixels` is (height, width, 3) uint8 RGB.

    `seconds` is how long decoding took, `at` its end by `time.time_ns()`.
    """

    job_id: str
    index: int
    seed: int
    pixels: NDArray[numpy.uint8]
    seconds: float = 0.0
    at: int = field(default_factory=time.time_ns, compare=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """All images of a job are complete. Times are in seconds of wall clock.

    `mean_batch` is the mean number of images in the forwards that the job took part in.
    """

    job_id: str
    denoise_seconds: float
    decode_seconds: float
    mean_batch: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed. `is_retryable` says whether another attempt may succeed."""

    job_id: str
    code: str
    detail: str
    is_retryable: bool


EngineEvent = Started | StepDone | Preview | ImageReady | Finished | Failed


@dataclass(frozen=True, slots=True)
class Forward:
    """One model call for `images` images of this size in pixels; `seconds` of wall clock."""

    width: int
    height: int
    images: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a GPU in bytes: allocated and reserved by this process, free, and total size."""

    device: str
    allocated: int
    reserved: int
    free: int
    size: int


@dataclass(slots=True)
class CompiledState:
    """Whether pictures can be computed by compiled code, and why not.

    `name` is off, eager (decided, or no tools for it), compiling, ready or failed.
    """

    name: str = "off"
    detail: str = ""
    failures: int = 0


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was created. The mean batch size is evaluations / forwards.

    `shortages` counts the forwards that did not fit into the device's memory. `latest` holds the
    model calls of the latest step; `memory` is None if the device is not a GPU. `compiled` is
    one object for all copies.
    """

    forwards: int = 0
    evaluations: int = 0
    rows: int = 0
    forward_seconds: float = 0.0
    shortages: int = 0
    latest: tuple[Forward, ...] = ()
    memory: DeviceMemory | None = None
    compiled: CompiledState = field(default_factory=CompiledState)

    def add(self, forward: Forward) -> None:
        """Count a forward of this step."""
        self.forwards += 1
        self.evaluations += forward.images
        self.forward_seconds += forward.seconds
        self.latest += (forward,)


class GenerationEngine(Protocol):
    """Runs many requests at once, one model evaluation per step. Not thread-safe."""

    stats: EngineStats

    def admit(
        self, job_id: str, request: ResolvedRequest, *, owner: str = "", weight: float = 1.0
    ) -> None:
        """Add a request. Its work starts with the next step. ValueError if the id is known.

        Owners share the engine in proportion to their weights.
        """

    def step(self) -> list[EngineEvent]:
        """Evaluate the model once for a batch of images.

        Returns [] if there is nothing to do, or if all requests still wait for their files.
        """

    def cancel(self, job_id: str) -> None:
        """Remove a request at once, without an event. Unknown ids are ignored."""

    def description(self) -> dict[str, Any]:
        """The checkpoint's hashes, device and precision, for logs and `/capabilities`."""
