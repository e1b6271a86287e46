"""The composition of a picture: its unit of length and the positions of face and eyes."""

EYE_PLACE = (0.135, 0.068)
"""Centre of an open eye: offset right and down from the middle of the face, in units."""


def unit(width: int, height: int) -> float:
    """Length of the composition's unit in pixels; the head is about two thirds of it wide."""
    return min(height, 1.08 * width)


def head_center(width: int, height: int) -> tuple[float, float]:
    """Position of the middle of the face, in pixels."""
    scale = unit(width, height)
    return width / 2, 0.455 * scale + 0.45 * (height - scale)
