"""Converts latents to small previews by a fixed linear map to RGB, without the VAE.

`training/train/latent_rgb.py` fits the map.
"""

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PREVIEWS = 10
"""Maximum number of previews of one image, spread evenly over its evaluations."""


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
    """Whether to send a preview after the evaluation that leaves `remaining` of `total`.

    The first and the last evaluation get none: the first shows noise, and the last is followed by
    the image itself.
    """
    share = min(1.0, MAX_PREVIEWS / total)
    return 0 < remaining < total - 1 and int(remaining * share) != int((remaining + 1) * share)
