"""Forwards that the device may still compute, and what they turn out to be."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.engine.protocol import Forward
from model.engine.running_request import UnfinishedImage
from model.network.device import Readback


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A forward that has ended: its images at their noise levels, and whether each is finite.

    `seconds` is for how long the device computed it.
    """

    batch: Sequence[UnfinishedImage]
    sigmas: Sequence[float]
    are_finite: Sequence[bool]
    seconds: float

    def size(self, scale_factor: int) -> Forward:
        """Its size, with so many pixels to each side of a latent."""
        height, width = (side * scale_factor for side in self.batch[0].x.shape[-2:])
        return Forward(width, height, len(self.batch), self.seconds)


@dataclass(frozen=True, slots=True)
class _Launched:
    batch: Sequence[UnfinishedImage]
    sigmas: Sequence[float]
    are_finite: Readback
    began: float


class LaunchedForwards:
    """Forwards in their order. A GPU computes one while the host prepares the next.

    So the results of a forward are used at once, and only later read: one small tensor for all
    images. `confirmed` counts the forwards that have been read.
    """

    def __init__(self) -> None:
        self.confirmed = 0
        self._waiting: deque[_Launched] = deque()
        self._read_at = -math.inf

    @property
    def count(self) -> int:
        """Forwards so far."""
        return self.confirmed + len(self._waiting)

    def add(
        self, batch: Sequence[UnfinishedImage], results: Sequence[Tensor], began: float
    ) -> None:
        """Add a forward that was launched at `began` by `time.perf_counter()`."""
        finite = torch.isfinite(torch.cat(list(results)).flatten(1)).all(1)
        sigmas = [image.sigma for image in batch]
        self._waiting.append(_Launched(batch, sigmas, Readback(finite), began))

    def read(self, *, keep: int) -> Iterator[Confirmed]:
        """Wait for all forwards but the latest `keep`."""
        while len(self._waiting) > keep:
            launched = self._waiting.popleft()
            self.confirmed += 1
            are_finite = launched.are_finite.read()
            now = time.perf_counter()
            seconds = now - max(launched.began, self._read_at)
            self._read_at = now
            yield Confirmed(launched.batch, launched.sigmas, are_finite, seconds)
