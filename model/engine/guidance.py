"""Evaluates the model for several images in one forward and applies classifier-free guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network.transformer.forward import Row, TextKeys


@dataclass(frozen=True, slots=True)
class DenoiseInput:
    """One evaluation: latents `x` (1, C, 1, h, w) at noise level `sigma`.

    `texts` holds the prompt, then with guidance the negative prompt.
    """

    x: Tensor
    sigma: float
    texts: tuple[TextKeys, ...]
    cfg_scale: float


def denoise(
    velocity: Callable[[Sequence[Row]], Tensor],
    inputs: Sequence[DenoiseInput],
    *,
    is_row_by_row: bool,
) -> list[Tensor]:
    """Predict the noiseless latents of every input, float32, each of its own `x`'s shape.

    The prediction is D = x - sigma * v. Guidance (Ho and Salimans, arXiv 2207.12598) gives
    D_u + scale * (D_c - D_u), with D_c for the prompt and D_u for the negative prompt; both are
    rows of the same forward. `is_row_by_row` runs one forward per row, so that memory shortage
    cannot change how a forward is split.
    """
    rows = [Row(one.x, one.sigma, text) for one in inputs for text in one.texts]
    size = 1 if is_row_by_row else len(rows)
    slices = [slice(start, start + size) for start in range(0, len(rows), size)]
    velocities = iter(torch.split(torch.cat([velocity(rows[part]) for part in slices]), 1))
    return [_guided(one, [next(velocities) for _ in one.texts]) for one in inputs]


def _guided(one: DenoiseInput, velocities: Sequence[Tensor]) -> Tensor:
    denoised = [one.x - one.sigma * v for v in velocities]
    if len(denoised) == 1:
        return denoised[0]
    guided, unguided = denoised
    return unguided + one.cfg_scale * (guided - unguided)
