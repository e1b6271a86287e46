"""Writes PNG files: one filter for all rows of an image, and only runs are looked for.

Choosing a filter for each row takes longer than all the rest and saves nothing, and after filtering
few repetitions but runs are left. Every zlib and zlib-ng finds the same runs, so an image has the
same bytes on all machines.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo, putchunk

_Bytes = NDArray[numpy.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB = 8, 2
_CHANNELS = 3
_MOST_MEMORY = 9

_BLOCK_BYTES = 48 << 10
"""Of the rows that are filtered at once, so that they stay in the processor's cache."""

_TRIED_ROWS = 32
"""On so many rows, spread over the image, the filters are compared."""


def encode_png(pixels: _Bytes, texts: PngInfo) -> bytes:
    """A PNG file of an image, (height, width, 3) uint8 RGB, with the texts before the pixels."""
    height, width, _ = pixels.shape
    # Left of and above the image there are zeros.
    framed = numpy.zeros((height + 1, _CHANNELS * (width + 1)), numpy.uint8)
    framed[1:, _CHANNELS:] = pixels.reshape(height, -1)
    above, here = framed[:-1], framed[1:]
    every = 1 + height // _TRIED_ROWS
    tried = slice(every // 2, None, every)  # the first row has nothing above
    best = min(_PREDICTIONS, key=lambda one: len(_packed(above[tried], here[tried], one)))
    file = io.BytesIO()
    file.write(_SIGNATURE)
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    putchunk(file, b"IHDR", header)
    for kind, data, *_ in texts.chunks:
        putchunk(file, kind, data)
    putchunk(file, b"IDAT", _packed(above, here, best))
    putchunk(file, b"IEND")
    return file.getvalue()


def _packed(above: _Bytes, here: _Bytes, number: int) -> bytes:
    """Filter rows, each with a pixel of zeros on its left, by PNG's filter `number`; compress."""
    height, width = len(here), here.shape[1] - _CHANNELS
    rows = numpy.empty((height, 1 + width), numpy.uint8)
    rows[:, 0] = number
    step = max(1, _BLOCK_BYTES // width)
    for top in range(0, height, step):
        block = slice(top, top + step)
        left, x = here[block, :-_CHANNELS], here[block, _CHANNELS:]
        corner, up = above[block, :-_CHANNELS], above[block, _CHANNELS:]
        numpy.subtract(x, _PREDICTIONS[number](left, up, corner), out=rows[block, 1:])
    # The strategy decides, not the level.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, _MOST_MEMORY, zlib.Z_RLE)
    return packer.compress(rows.data) + packer.flush()


def _up(left: _Bytes, up: _Bytes, corner: _Bytes) -> _Bytes:
    return up


def _average(left: _Bytes, up: _Bytes, corner: _Bytes) -> _Bytes:
    """The mean of left and up, rounded down, in bytes."""
    return (left & up) + ((left ^ up) >> 1)


def _paeth(left: _Bytes, up: _Bytes, corner: _Bytes) -> _Bytes:
    """Whichever of the three is closest to left + up - corner; ties go to left, then to up.

    In bytes: once the corner is clipped between the other two, it is as far from the higher one as
    the estimate is from the lower one, and the other way round.
    """
    low, high = numpy.minimum(left, up), numpy.maximum(left, up)
    found = numpy.minimum(numpy.maximum(corner, low), high)
    from_low, from_high = high - found, found - low
    is_low, is_high = from_high >> 1 >= from_low, from_low >> 1 >= from_high
    found -= from_high * is_low.view(numpy.uint8)
    found += from_low * is_high.view(numpy.uint8)
    return found


_PREDICTIONS: dict[int, Callable[[_Bytes, _Bytes, _Bytes], _Bytes]] = {
    2: _up,
    3: _average,
    4: _paeth,
}
"""How PNG's filters predict a byte from its neighbours. `Sub` is never the best of all."""
