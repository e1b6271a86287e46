"""Splits a forward that does not fit into the device's memory, and keeps later ones smaller."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.engine.batching import PATCH

logger = logging.getLogger(__name__)

_GROWTH = 1.001
"""Growth of the limit with every forward that fits: it doubles after 700 forwards."""


class ChunkedForward:
    """A velocity function that halves its batch when the device is out of memory.

    `max_tokens` is the largest size of a forward: infinity until the first shortage. `shortages`
    counts the forwards that did not fit.
    """

    def __init__(self, velocity: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.max_tokens = math.inf
        self.shortages = 0
        self._velocity = velocity

    def __call__(self, x: Tensor, sigma: Tensor, contexts: Tensor) -> Tensor:
        """Return the velocity of all rows, computed in as few forwards as memory allows.

        Raises:
            torch.OutOfMemoryError: not even a single row fits.
        """
        tokens = -(-x.shape[-2] // PATCH) * -(-x.shape[-1] // PATCH)
        chunks: list[Tensor] = []
        done = 0
        while done < len(x):
            rows = len(x) - done
            if self.max_tokens < math.inf:
                rows = min(rows, max(1, int(self.max_tokens // tokens)))
            chunk = slice(done, done + rows)
            velocity = self._attempt(x[chunk], sigma[chunk], contexts[chunk])
            if velocity is None:
                self.max_tokens = float(rows // 2 * tokens)
                logger.warning("no memory for %d rows of %d tokens; half of them", rows, tokens)
                continue
            chunks.append(velocity)
            done += rows
        self.max_tokens *= _GROWTH
        return torch.cat(chunks) if len(chunks) > 1 else chunks[0]

    def _attempt(self, x: Tensor, sigma: Tensor, contexts: Tensor) -> Tensor | None:
        """None if the device has no memory for more than one row at once."""
        try:
            return self._velocity(x, sigma, contexts)
        except torch.OutOfMemoryError:
            self.shortages += 1
            if len(x) == 1:
                raise
        # Outside the handler: its traceback keeps the tensors that did not fit alive.
        torch.cuda.empty_cache()
        return None
