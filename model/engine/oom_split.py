"""Forwards that do not fit into the device's memory are halved, and later ones kept smaller.

Knows no requests and no sampler: rows in, rows out.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from model.engine.batching import PATCH

logger = logging.getLogger(__name__)

_RECOVERY = 1.001
"""Growth of the limit with every forward that fits: after 700 of them a doubled one is tried."""


class ChunkedForward:
    """A velocity function that splits what the device has no memory for.

    `room` is the most tokens that a forward may have: None until memory ran short for the first
    time. `shortages` counts how often it did.
    """

    def __init__(self, velocity: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.room: float | None = None
        self.shortages = 0
        self._velocity = velocity

    def __call__(self, x: Tensor, sigma: Tensor, contexts: Tensor) -> Tensor:
        """The velocity of all rows, in as many forwards as memory asks for.

        Raises torch.OutOfMemoryError if there is none for a single row.
        """
        tokens = -(-x.shape[-2] // PATCH) * -(-x.shape[-1] // PATCH)
        parts: list[Tensor] = []
        done = 0
        while done < len(x):
            rows = len(x) - done
            if self.room is not None:
                rows = min(rows, max(1, int(self.room // tokens)))
            part = slice(done, done + rows)
            answer = self._attempt(x[part], sigma[part], contexts[part])
            if answer is None:
                self.room = float(rows // 2 * tokens)
                logger.warning("no memory for %d rows of %d tokens; half of them", rows, tokens)
                continue
            parts.append(answer)
            done += rows
        if self.room is not None:
            self.room *= _RECOVERY
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _attempt(self, x: Tensor, sigma: Tensor, contexts: Tensor) -> Tensor | None:
        """None where the device has no memory for several rows at once."""
        try:
            return self._velocity(x, sigma, contexts)
        except torch.OutOfMemoryError:
            self.shortages += 1
            if len(x) == 1:
                raise
        # Not in the handler, whose traceback holds on to what did not fit.
        torch.cuda.empty_cache()
        return None
