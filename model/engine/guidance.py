"""Evaluates the model for several images in one forward and applies classifier-free guidance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DenoiseInput:
    """One evaluation: latents `x` (1, C, 1, h, w) at noise level `sigma`.

    `contexts` holds the encoded prompt (rows, dim), then with guidance the negative prompt.
    """

    x: Tensor
    sigma: float
    contexts: tuple[Tensor, ...]
    cfg_scale: float


def denoise(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
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
    rows = [(one.x, one.sigma, context) for one in inputs for context in one.contexts]
    latents, sigmas, contexts = zip(*rows, strict=True)
    x = torch.cat(latents)
    sigma = torch.tensor(sigmas, dtype=torch.float32, device=x.device)
    context = torch.stack(contexts)
    size = 1 if is_row_by_row else len(x)
    slices = [slice(start, start + size) for start in range(0, len(x), size)]
    v = torch.cat([velocity(x[rows], sigma[rows], context[rows]) for rows in slices])
    denoised = x - sigma.view(-1, 1, 1, 1, 1) * v
    answers, row = [], 0
    for one in inputs:
        answer = denoised[row : row + 1]
        if len(one.contexts) == 2:
            unguided = denoised[row + 1 : row + 2]
            answer = unguided + one.cfg_scale * (answer - unguided)
        answers.append(answer)
        row += len(one.contexts)
    return answers
