"""Converts latents to pixels and back, one frame at a time, without the library's frame cache.

Stateless, so threads may share the module.
"""

from collections.abc import Sequence

import numpy
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import (
    AutoencoderKLQwenImage,
    QwenImageCausalConv3d,
    QwenImageRMS_norm,
)
from numpy.typing import NDArray
from torch import Tensor, nn

from model.errors import NonFiniteLatents
from model.network.vae_tiles import decoded_tiles

_LEAST_SQUARES = 1e-24
"""The square of the least norm that the library divides by."""


class OneFrameConv(nn.Conv2d):
    """A causal 3-D convolution on a single frame, computed as a 2-D convolution.

    The frames before the first are zeros, so only the last temporal tap has an effect.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, C', 1, H', W')."""
        return super().forward(x.squeeze(2)).unsqueeze(2)


class ChannelNorm(QwenImageRMS_norm):
    """The library's norm over the channels, by a sum of squares.

    PyTorch's own norm of numbers that are not neighbours in memory reads them one by one: on a
    processor it took as long as all convolutions.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to its like: each place divided by the norm of its channels."""
        squares = x.float().square().sum(1, keepdim=True)
        factor = self.scale * squares.clamp_min(_LEAST_SQUARES).rsqrt()
        normalized: Tensor = x * factor.to(x.dtype) * self.gamma
        return normalized


def flatten_convolutions(module: nn.Module) -> None:
    """Replace every causal 3-D convolution inside `module` by its exact one-frame form.

    Norms become `ChannelNorm`.
    """
    for name, child in module.named_children():
        if isinstance(child, QwenImageCausalConv3d):
            setattr(module, name, _one_frame(child))
        elif type(child) is QwenImageRMS_norm:
            child.__class__ = ChannelNorm
        else:
            flatten_convolutions(child)


def _one_frame(conv: QwenImageCausalConv3d) -> OneFrameConv:
    # The library moves the padding out of the convolution: (left, right, top, bottom, past, 0).
    left, _, top, _, _, _ = conv._padding
    _, height, width = conv.kernel_size
    _, step_down, step_right = conv.stride
    flat = OneFrameConv(
        conv.in_channels,
        conv.out_channels,
        kernel_size=(height, width),
        stride=(step_down, step_right),
        padding=(int(top), int(left)),
        device="meta",
    )
    flat.weight = nn.Parameter(conv.weight.detach()[:, :, -1].contiguous(), requires_grad=False)
    if conv.bias is not None:
        flat.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return flat


@torch.no_grad()
def decode_latents(
    vae: AutoencoderKLQwenImage,
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
        # vae.decode() keeps a frame cache on the module, which would mix up the images of different
        # threads. For one frame this is the same computation.
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
    vae: AutoencoderKLQwenImage,
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
