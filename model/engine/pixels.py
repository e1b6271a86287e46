"""Arithmetic on pictures: to tensors, to other sizes, masks over latents, and two into one.

Pictures are (height, width, 3) uint8 RGB, masks (height, width) uint8 where 255 is repainted and 0
is kept. Knows neither files nor the model.
"""

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[numpy.uint8]


def to_tensor(pixels: Pixels, *, device: torch.device | str = "cpu") -> Tensor:
    """Give (1, 3, 1, H, W) float32 in [-1, 1], as the VAE's encoder takes it."""
    values = torch.tensor(pixels).to(device).float()
    return (values / 127.5 - 1).movedim(-1, 0)[None, :, None]


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale a picture by Lanczos' filter; one of the right size already is given back as it is."""
    if pixels.shape[:2] == (height, width):
        return pixels
    scaled = Image.fromarray(pixels, "RGB").resize((width, height), Image.Resampling.LANCZOS)
    return numpy.asarray(scaled)


def resized_mask(mask: Pixels, width: int, height: int) -> Pixels:
    """Scale a mask bilinearly: unlike Lanczos' filter it rings nowhere, so what is kept stays 0."""
    if mask.shape == (height, width):
        return mask
    scaled = Image.fromarray(mask, "L").resize((width, height), Image.Resampling.BILINEAR)
    return numpy.asarray(scaled)


def latent_mask(mask: Pixels, scale_factor: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Give (1, 1, 1, h, w) float32 in [0, 1]: of each latent's pixels the one repainted most.

    So whatever is white can become anything; what is black around it is put back by `blended`.
    """
    values = torch.tensor(mask).to(device).float() / 255
    return torch.nn.functional.max_pool2d(values[None, None], scale_factor)[:, :, None]


def blended(painted: Pixels, original: Pixels, mask: Pixels) -> Pixels:
    """Put `original` back where the mask is 0, bit for bit; `painted` is exact where it is 255."""
    share = mask.astype(numpy.uint32)[..., None]
    mixed = painted * share + original * (255 - share)
    return ((mixed + 127) // 255).astype(numpy.uint8)
