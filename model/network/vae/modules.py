"""The autoencoder of Qwen-Image for single frames, under the names of diffusers' module.

Of a causal 3-D convolution only the last temporal tap has an effect, because the frames before the
first are zeros; so all are 2-D, and the convolutions between frames are left out.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.card import VaeArchitecture
from model.files.weight_shapes import IMAGE_CHANNELS

_LEAST_SQUARES = 1e-24
"""The square of the least norm that the library divides by."""


class OneFrameConv(nn.Conv2d):
    """A causal 3-D convolution on a single frame, computed as a 2-D convolution."""

    def __init__(self, width: int, out: int, side: int = 3) -> None:
        """`side` is that of the kernel; the size of the frame stays."""
        super().__init__(width, out, side, padding=side // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, C', 1, H, W)."""
        return super().forward(x.squeeze(2)).unsqueeze(2)


class ChannelNorm(nn.Module):
    """The library's norm over the channels, by a sum of squares.

    PyTorch's own norm of numbers that are not neighbours in memory reads them one by one: on a
    processor it took as long as all convolutions.
    """

    def __init__(self, width: int, axes: int = 3) -> None:
        """`axes` counts those after the channels."""
        super().__init__()
        self.scale = width**0.5
        self.gamma = nn.Parameter(torch.ones(width, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, ...) to its like: each place divided by the norm of its channels."""
        squares = x.float().square().sum(1, keepdim=True)
        factor = self.scale * squares.clamp_min(_LEAST_SQUARES).rsqrt()
        normalized: Tensor = x * factor.to(x.dtype) * self.gamma
        return normalized


class Residual(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(width), OneFrameConv(width, out)
        self.norm2, self.conv2 = ChannelNorm(out), OneFrameConv(out, out)
        same = width == out
        self.conv_shortcut = nn.Identity() if same else OneFrameConv(width, out, side=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, C', 1, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        summed: Tensor = h + self.conv_shortcut(x)
        return summed


class Attention(nn.Module):
    """Attention between all places of a frame, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, axes=2)
        self.to_qkv, self.proj = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to its like."""
        return x + self.attended(x.squeeze(2)).unsqueeze(2)

    def attended(self, x: Tensor, queries: int | None = None) -> Tensor:
        """What is added to (B, C, H, W), with so many queries at once; None: with all."""
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        q, k, v = qkv[:, None].chunk(3, dim=-1)
        parts = [
            functional.scaled_dot_product_attention(part, k, v)
            for part in torch.split(q, queries or q.shape[2], dim=2)
        ]
        attended = torch.cat(parts, dim=2).squeeze(1).transpose(1, 2).reshape(x.shape)
        projected: Tensor = self.proj(attended)
        return projected


class Middle(nn.Module):
    """Attention between two residual blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Residual(width, width), Residual(width, width)])
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to its like."""
        changed: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return changed


class Resample(nn.Module):
    """Doubles or halves the sides of a frame. Upwards it halves the channels."""

    def __init__(self, width: int, *, is_up: bool) -> None:
        super().__init__()
        if is_up:
            change: nn.Module = nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
            convolution = nn.Conv2d(width, width // 2, 3, padding=1)
        else:
            change = nn.ZeroPad2d((0, 1, 0, 1))
            convolution = nn.Conv2d(width, width, 3, stride=2)
        self.resample = nn.Sequential(change, convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, C', 1, H', W')."""
        resampled: Tensor = self.resample(x.squeeze(2))
        return resampled.unsqueeze(2)


class UpBlock(nn.Module):
    """Residual blocks, then perhaps a doubling of the sides."""

    def __init__(self, width: int, out: int, blocks: int, *, is_last: bool) -> None:
        super().__init__()
        widths = [width] + [out] * blocks
        self.resnets = nn.ModuleList(Residual(*pair) for pair in pairwise(widths))
        self.upsamplers = None if is_last else nn.ModuleList([Resample(out, is_up=True)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, C', 1, H', W')."""
        for layer in (*self.resnets, *(self.upsamplers or ())):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pixels to the moments of latents."""

    def __init__(self, widths: list[int], moments: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = OneFrameConv(IMAGE_CHANNELS, widths[0])
        self.down_blocks = nn.ModuleList()
        for level, (width, out) in enumerate(pairwise(widths)):
            for pair in pairwise([width] + [out] * blocks):
                self.down_blocks.append(Residual(*pair))
            if level < len(widths) - 2:
                self.down_blocks.append(Resample(out, is_up=False))
        self.mid_block = Middle(widths[-1])
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = OneFrameConv(widths[-1], moments)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, 1, H, W) to (B, moments, 1, h, w)."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return _output(self, self.mid_block(x))


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, widths: list[int], channels: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = OneFrameConv(channels, widths[0])
        self.mid_block = Middle(widths[0])
        last = len(widths) - 2
        self.up_blocks = nn.ModuleList(
            UpBlock(width // 2 if level else width, out, blocks, is_last=level == last)
            for level, (width, out) in enumerate(pairwise(widths))
        )
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = OneFrameConv(widths[-1], IMAGE_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, h, w) to (B, 3, 1, H, W)."""
        return self.enlarged(self.mid_block(self.conv_in(x)))

    def enlarged(self, x: Tensor) -> Tensor:
        """The second half, after which a pixel knows only its surroundings."""
        for block in self.up_blocks:
            x = block(x)
        return _output(self, x)


class Autoencoder(nn.Module):
    """The encoder, the decoder, and the convolutions of latents between them."""

    def __init__(self, architecture: VaeArchitecture, channels: int) -> None:
        """`channels` counts those of the latents."""
        super().__init__()
        base, blocks = architecture.base_dim, architecture.num_res_blocks
        widths = [base * multiplier for multiplier in architecture.dim_mult]
        self.encoder = Encoder([base, *widths], 2 * channels, blocks)
        self.quant_conv = OneFrameConv(2 * channels, 2 * channels, side=1)
        self.post_quant_conv = OneFrameConv(channels, channels, side=1)
        self.decoder = Decoder([widths[-1], *reversed(widths)], channels, blocks + 1)


def _output(part: Any, x: Tensor) -> Tensor:
    mapped: Tensor = part.conv_out(functional.silu(part.norm_out(x)))
    return mapped
