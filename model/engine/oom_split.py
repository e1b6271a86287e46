"""Splits a forward that does not fit into the device's memory, and keeps later ones smaller."""

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.engine.batching import PATCH
from model.network.transformer.forward import Row

logger = logging.getLogger(__name__)

_GROWTH = 1.001
"""Growth of the limit with every forward that fits: it doubles after 700 forwards."""


class ChunkedForward:
    """A velocity function that halves its batch when the device is out of memory.

    `max_tokens` is the largest size of a forward: infinity until the first shortage. `shortages`
    counts the forwards that did not fit.
    """

    def __init__(self, velocity: Callable[[Sequence[Row]], Tensor]) -> None:
        self.max_tokens = math.inf
        self.shortages = 0
        self._velocity = velocity

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
        torch.cuda.empty_cache()
        return None
