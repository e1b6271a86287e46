"""The composition of a picture: its unit of length and the place of the face and the eyes."""

EYE_PLACE = (0.135, 0.068)
"""An open eye, beside and below the middle of the face, in units."""


def unit(width: int, height: int) -> float:
    """Length of the composition's unit in pixels: the head is about two thirds of it wide."""
    return min(height, 1.08 * width)


def head_center(width: int, height: int) -> tuple[float, float]:
    """Where the middle of the face lies, in pixels."""
    scale = unit(width, height)
    return width / 2, 0.455 * scale + 0.45 * (height - scale)
