"""Image arithmetic: conversion to tensors, resizing, masks over latents and blending.

Images are (height, width, 3) uint8 RGB. Masks are (height, width) uint8: 255 is repainted, 0 is
kept.
"""

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Pixels = NDArray[numpy.uint8]


def to_tensor(pixels: Pixels, *, device: torch.device | str = "cpu") -> Tensor:
    """Convert to (1, 3, 1, H, W) float32 in [-1, 1], the input of the VAE's encoder."""
    values = torch.tensor(pixels).to(device).float()
    return (values / 127.5 - 1).movedim(-1, 0)[None, :, None]


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize an image with Lanczos' filter. An image of the right size is returned as it is."""
    if pixels.shape[:2] == (height, width):
        return pixels
    scaled = Image.fromarray(pixels, "RGB").resize((width, height), Image.Resampling.LANCZOS)
    return numpy.asarray(scaled)


def resize_mask(mask: Pixels, width: int, height: int) -> Pixels:
    """Resize a mask bilinearly: without the overshoot of Lanczos' filter, 0 stays 0."""
    if mask.shape == (height, width):
        return mask
    scaled = Image.fromarray(mask, "L").resize((width, height), Image.Resampling.BILINEAR)
    return numpy.asarray(scaled)


def latent_mask(mask: Pixels, scale_factor: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Reduce a mask to (1, 1, 1, h, w) float32 in [0, 1]: the maximum over each latent's pixels.

    Every pixel that the mask repaints can change fully; `blend` restores the pixels around it.
    """
    values = torch.tensor(mask).to(device).float() / 255
    return torch.nn.functional.max_pool2d(values[None, None], scale_factor)[:, :, None]


def blend(painted: Pixels, original: Pixels, mask: Pixels) -> Pixels:
    """Mix two images by the mask: exactly `original` at 0, exactly `painted` at 255."""
    share = mask.astype(numpy.uint32)[..., None]
    mixed = painted * share + original * (255 - share)
    return ((mixed + 127) // 255).astype(numpy.uint8)
