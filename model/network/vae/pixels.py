"""Converts latents to pixels and back, one frame at a time, without the library's frame cache.

Stateless, so threads may share the module.
"""

from collections.abc import Sequence

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import NonFiniteLatents
from model.network.vae.modules import Autoencoder
from model.network.vae.tiles import decoded_tiles


@torch.no_grad()
def decode_latents(
    vae: Autoencoder,
    latents: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    tile: int | None = None,
) -> NDArray[numpy.uint8]:
    """Convert normalised latents (B, C, 1, h, w) to (B, H, W, 3) uint8 RGB.

    `mean` and `std` are per latent channel. Values are clamped to [-1, 1] and rounded to the
    nearest of 256 levels, ties to even: round((x + 1) / 2 * 255). With `tile`, a side in latents,
    only so much is decoded at once; the pixels are the same to rounding.

    Raises:
        NonFiniteLatents: a latent or a pixel is NaN or infinite.
    """
    _require_finite(latents, "latents")
    weight = vae.post_quant_conv.weight
    z = latents * _per_channel(std, latents) + _per_channel(mean, latents)
    z = vae.post_quant_conv(z.to(weight.dtype))
    if tile is None:
        return _levels(vae.decoder(z))
    tiles = [
        (rows, columns, _levels(pixels))
        for rows, columns, pixels in decoded_tiles(vae.decoder, z, tile)
    ]
    height, width = tiles[-1][0].stop, tiles[-1][1].stop
    whole = numpy.empty((len(z), height, width, 3), numpy.uint8)
    for rows, columns, levels in tiles:
        whole[:, rows, columns] = levels
    return whole


def _levels(pixels: Tensor) -> NDArray[numpy.uint8]:
    """(B, 3, 1, H, W) around [-1, 1] to (B, H, W, 3) uint8."""
    pixels = pixels.float()
    _require_finite(pixels, "pixels")
    levels = (pixels[:, :, 0].clamp(-1, 1) + 1) / 2 * 255
    rgb: NDArray[numpy.uint8] = levels.round().to(torch.uint8).movedim(1, -1).cpu().numpy()
    return rgb


def encode_pixels(
    vae: Autoencoder,
    pixels: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Convert pixels (B, 3, 1, H, W) in [-1, 1] to normalised latents (B, C, 1, H/8, W/8).

    Uses the mode of the posterior. Gradients flow through.
    """
    moments = vae.quant_conv(vae.encoder(pixels.to(vae.quant_conv.weight.dtype))).float()
    mode: Tensor = moments[:, : len(mean)]
    return (mode - _per_channel(mean, mode)) / _per_channel(std, mode)


def _per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1, 1)


def _require_finite(tensor: Tensor, what: str) -> None:
    if not torch.isfinite(tensor).all():
        raise NonFiniteLatents(f"{what} of shape {tuple(tensor.shape)} contain NaN or infinity")
