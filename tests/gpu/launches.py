"""Whether launches limit: the host's time to enqueue a call beside the device's time of it."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tests.gpu.subject import Subject

_HELD_CYCLES = 200_000_000
"""The device waits for so long, about 0.1 s, before the call's first kernel."""


class Enqueued(NamedTuple):
    """Seconds of a call: of the host, which waits for nothing, and of the device without gaps.

    None: the host computes it itself.
    """

    host: float
    device: float | None

    @property
    def note(self) -> str:
        """What the two say."""
        if self.device is None:
            return "no device: the host computes it"
        verdict = "limit" if self.host > self.device else "do not limit"
        return f"the device takes {1000 * self.device:.4g} ms of it: launches {verdict}"


def enqueued(subject: Subject, call: Callable[[], Any]) -> Enqueued:
    """Medians of five calls after one to warm up, each when nothing else is enqueued.

    So that the device never waits for the host, it is held until all is enqueued. At most a
    thousand kernels fit into CUDA's queue.
    """
    call()
    if subject.device.type != "cuda":
        return Enqueued(subject.seconds(call), None)
    hosts, devices = zip(*(_once(subject, call) for _ in range(5)), strict=True)
    return Enqueued(statistics.median(hosts), statistics.median(devices))


def _once(subject: Subject, call: Callable[[], Any]) -> tuple[float, float]:
    cuda: Any = torch.cuda
    before, after = (cuda.Event(enable_timing=True) for _ in range(2))
    subject.synchronize()
    cuda._sleep(_HELD_CYCLES)
    before.record()
    began = time.perf_counter()
    call()
    host = time.perf_counter() - began
    after.record()
    subject.synchronize()
    return host, before.elapsed_time(after) / 1000
