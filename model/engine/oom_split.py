"""Splits what does not fit into the device's memory, and keeps later forwards smaller."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from model.engine.batching import PATCH
from model.engine.failures import without_frames
from model.network.transformer.forward import Row

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

TILES = (64, 32, 16)
"""Sides of the tiles, in latents, that are tried when memory is too short to decode an image."""

_GROWTH = 1.001
"""Growth of the limit with every forward that fits: it doubles after 700 forwards."""


class ChunkedForward:
    """A velocity function that halves its batch when the device is out of memory.

    `max_tokens` is the largest size of a forward: infinity until the first shortage. `shortages`
    counts the forwards that did not fit. `release_memory` frees what is kept for later.
    """

    def __init__(
        self, velocity: Callable[[Sequence[Row]], Tensor], release_memory: Callable[[], None]
    ) -> None:
        self.max_tokens = math.inf
        self.shortages = 0
        self._velocity = velocity
        self._release_memory = release_memory

    def __call__(self, rows: Sequence[Row]) -> Tensor:
        """Return the velocity of all rows, computed in as few forwards as memory allows.

        Raises:
            torch.OutOfMemoryError: not even a single row fits.
        """
        height, width = rows[0].latents.shape[-2:]
        tokens = -(-height // PATCH) * -(-width // PATCH)
        chunks: list[Tensor] = []
        done = 0
        while done < len(rows):
            count = len(rows) - done
            if self.max_tokens < math.inf:
                count = min(count, max(1, int(self.max_tokens // tokens)))
            velocity = self._attempt(rows[done : done + count])
            if velocity is None:
                self.max_tokens = float(count // 2 * tokens)
                logger.warning("no memory for %d rows of %d tokens; half of them", count, tokens)
                continue
            chunks.append(velocity)
            done += count
        self.max_tokens *= _GROWTH
        return torch.cat(chunks) if len(chunks) > 1 else chunks[0]

    def _attempt(self, rows: Sequence[Row]) -> Tensor | None:
        """None if the device has no memory for more than one row at once."""
        try:
            return self._velocity(rows)
        except torch.OutOfMemoryError:
            self.shortages += 1
            if len(rows) == 1:
                raise
        # Outside the handler: its traceback keeps the tensors that did not fit alive.
        self._release_memory()
        return None


def decode_within_memory(
    decode: Callable[[Tensor, int | None], _T],
    latents: Tensor,
    *,
    fits: Callable[[Tensor, int | None], bool] = lambda latents, tile: True,
    release_memory: Callable[[], None],
) -> _T:
    """Decode whole, or in the largest tiles that `fits` expects room for.

    If memory is short nevertheless: once more with all cached memory released, then in smaller and
    smaller tiles. So a shortage costs no denoising. Raises torch.OutOfMemoryError if no tile fits.
    """
    tiles = (None, *TILES)
    first = next((n for n, tile in enumerate(tiles) if fits(latents, tile)), len(tiles) - 1)
    tries = [tiles[first], *tiles[first:]]
    attempts = [partial(decode, latents, tile) for tile in tries]
    return first_that_fits(attempts, release_memory=release_memory)


def first_that_fits(
    attempts: Sequence[Callable[[], _T]], *, release_memory: Callable[[], None]
) -> _T:
    """The result of the first attempt that memory is enough for.

    Raises:
        torch.OutOfMemoryError: it is not enough for the last one.
    """
    for attempt in attempts[:-1]:
        try:
            return attempt()
        except torch.OutOfMemoryError as exc:
            shortage = exc
        # Outside the handler, which would keep the tensors that did not fit alive.
        logger.warning("no memory to decode or encode an image (%s)", without_frames(shortage))
        release_memory()
    return attempts[-1]()
