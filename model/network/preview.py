"""A quick look at latents: a fixed linear map to RGB at an eighth of the picture's size.

Knows neither the VAE nor how the map was fitted (training/train/latent_rgb.py does that).
"""

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PREVIEWS = 10
"""Previews of one picture, spread evenly over its evaluations."""


def latents_to_rgb(
    latents: Tensor, *, factors: Sequence[Sequence[float]], bias: Sequence[float]
) -> NDArray[numpy.uint8]:
    """Turn normalised latents (1, C, 1, h, w) into (h, w, 3) uint8 RGB; `factors` is (C, 3)."""
    pixels = latents[0, :, 0].movedim(0, -1) @ latents.new_tensor(factors) + latents.new_tensor(
        bias
    )
    levels = (pixels.clamp(-1, 1) + 1) / 2 * 255
    rgb: NDArray[numpy.uint8] = levels.round().to(torch.uint8).cpu().numpy()
    return rgb


def is_preview_due(remaining: int, total: int) -> bool:
    """Whether the evaluation after which `remaining` of `total` are left is to be shown.

    At most MOST are, the first and the last never: noise is no news, and after the last one the
    picture itself is there.
    """
    share = min(1.0, MAX_PREVIEWS / total)
    return 0 < remaining < total - 1 and int(remaining * share) != int((remaining + 1) * share)
