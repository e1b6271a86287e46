"""Decodes latents in tiles that give the whole decoder's pixels, for devices with little memory.

The decoder's first half sees the whole image, at the small size of the latents. Its second half is
convolutions and norms of single pixels: a tile that is computed with a margin as wide as they
reach has the right pixels inside, and no seams.
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

Tile = tuple[slice, slice, Tensor]

_MAPS, _PIXELS = 5.2, 12
"""Feature maps and numbers for each pixel that decoding holds at its peak, as counted."""


def decoded_tiles(decoder: Any, z: Tensor, size: int) -> Iterator[Tile]:
    """Decode `z` (B, C, 1, h, w); yields rows and columns in pixels, and (B, 3, 1, H, W) of each.

    `size` is the side of a tile in latents, without the margin. Memory is that of a tile with its
    margin, which takes most of the time when tiles are small: 64 latents with a margin of 13 take
    twice the time of the whole, 16 take seven times.
    """
    x = _middle(decoder.mid_block, decoder.conv_in(z), queries=size * size)
    margin, height, width = reach(decoder), *z.shape[-2:]
    for top in range(0, height, size):
        for left in range(0, width, size):
            rows = slice(max(0, top - margin), min(height, top + size + margin))
            columns = slice(max(0, left - margin), min(width, left + size + margin))
            part = decoder.enlarged(x[..., rows, columns])
            scale = part.shape[-1] // (columns.stop - columns.start)
            inner = (
                slice((top - rows.start) * scale, (top - rows.start + size) * scale),
                slice((left - columns.start) * scale, (left - columns.start + size) * scale),
            )
            pixels = part[..., inner[0], inner[1]]
            yield (
                slice(top * scale, top * scale + pixels.shape[-2]),
                slice(left * scale, left * scale + pixels.shape[-1]),
                pixels,
            )


def decoding_bytes(decoder: Any, height: int, width: int, tile: int | None) -> int:
    """Bytes beside the weights that decoding so many latents takes at most, whole or in tiles."""
    margin = reach(decoder)
    rows, columns = (side if tile is None else min(side, tile + 2 * margin)
                     for side in (height, width))  # fmt: skip
    scale = 2 ** sum(block.upsamplers is not None for block in decoder.up_blocks)
    number = decoder.conv_out.weight.element_size()
    values = _MAPS * decoder.conv_out.in_channels + _PIXELS
    full = values * rows * columns * scale**2
    middle = 2 * height * width * decoder.conv_in.out_channels
    return int(number * (full + middle))


def reach(decoder: Any) -> int:
    """How far, in latents, a pixel of the decoder's second half sees to each side.

    A residual block has two convolutions of 3 x 3, an upsampling and the output have one each.
    """
    distance, scale = 0.0, 1
    for block in decoder.up_blocks:
        distance += 2 * len(block.resnets) / scale
        if block.upsamplers is not None:
            scale *= 2
            distance += 1 / scale
    return math.ceil(distance + 1 / scale)


def _middle(middle: Any, x: Tensor, *, queries: int) -> Tensor:
    """The decoder's middle block, whose attention takes so many queries at once."""
    x = middle.resnets[0](x)
    attended = middle.attentions[0].attended(x.squeeze(2), queries).unsqueeze(2)
    whole: Tensor = middle.resnets[1](x + attended)
    return whole
