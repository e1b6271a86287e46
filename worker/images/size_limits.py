"""Limits on the sizes of images that are read, checked by the header before anything is decoded."""

from typing import Final

MAX_PIXELS: Final = 4096 * 4096
MAX_SIDE: Final = 16_384
MAX_RATIO: Final = 100
"""Longer side by shorter side.

Decoders and filters need memory for each row, so a thin image costs many times what its pixels do.
"""


def size_problem(width: int, height: int) -> tuple[str, int] | None:
    """Why an image of this size is refused, and the limit that it exceeds; None if it is not."""
    size = f"{width}x{height}"
    if width * height > MAX_PIXELS:
        return f"{size} is too many pixels", MAX_PIXELS
    if max(width, height) > MAX_SIDE:
        return f"{size}: no side may have more than {MAX_SIDE} pixels", MAX_SIDE
    if max(width, height) > MAX_RATIO * min(width, height):
        return f"{size}: no side may be more than {MAX_RATIO} times the other", MAX_RATIO
    return None
