"""Draws smooth outlined shapes with Pillow."""

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.pictures.avatars import Color

Points = NDArray[np.float64]
Knots = Sequence[tuple[float, float]]
INK: Color = (46, 26, 44)
LINE = 0.017  # of the composition's unit: about 2 px in a picture of 128 px


def mix(color: Color, other: Color, share: float) -> Color:
    """`color` moved towards `other` by `share` in 0..1."""
    r, g, b = (round(c + (o - c) * share) for c, o in zip(color, other, strict=True))
    return r, g, b


class Pen:
    """Draws shapes given in units around the middle of the face, y pointing down."""

    def __init__(self, image: Image.Image, origin: tuple[float, float], scale: float, tilt: float):
        self._draw = ImageDraw.Draw(image)
        self._origin = np.array(origin)
        self._scale = scale
        self._turn = scale * np.array([[cos(tilt), sin(tilt)], [-sin(tilt), cos(tilt)]])

    def shape(
        self, points: Points | Knots, fill: Color, ink: Color | None = INK, width: float = LINE
    ) -> None:
        """Fill the closed curve through `points` and outline it. A repeated knot is a corner."""
        xy = self._place(_spline(np.asarray(points), is_closed=True))
        self._draw.polygon(xy, fill=fill)
        if ink is not None:
            self._draw.line(xy + xy[:4], fill=ink, width=self._pixels(width), joint="curve")

    def stroke(self, points: Knots, color: Color, width: float = LINE) -> None:
        """Draw an open curve with round ends."""
        xy = self._place(_spline(np.asarray(points), is_closed=False))
        pixels = self._pixels(width)
        self._draw.line(xy, fill=color, width=pixels, joint="curve")
        for x, y in (xy[:2], xy[-2:]):
            r = pixels / 2
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def oval(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        fill: Color,
        ink: Color | None = None,
        width: float = LINE,
    ) -> None:
        """Fill an upright ellipse; `ink` outlines it."""
        angles = np.arange(12) * (pi / 6)
        points = np.stack(
            [center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1
        )
        self.shape(points, fill, ink, width)

    def _pixels(self, width: float) -> int:
        return max(1, round(width * self._scale))

    def _place(self, points: Points) -> list[float]:
        placed: list[float] = (points @ self._turn + self._origin).ravel().tolist()
        return placed


def _spline(knots: Points, *, is_closed: bool, samples: int = 6) -> Points:
    """Catmull-Rom curve through `knots` (n, 2)."""
    t = np.arange(samples)[:, None] / samples
    if is_closed:
        a, b, c, d = (np.roll(knots, shift, axis=0) for shift in (1, 0, -1, -2))
    else:
        padded = np.concatenate([knots[:1], knots, knots[-1:]])
        a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    a, b, c, d = (part[:, None, :] for part in (a, b, c, d))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat: Points = curve.reshape(-1, 2)
    return flat if is_closed else np.concatenate([flat, knots[-1:]])


def mirror(points: Knots) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in points]


def symmetric(points: Knots) -> list[tuple[float, float]]:
    """Add the mirror image to a right half, which is listed from top to bottom."""
    return [*points, *reversed(mirror(points))]
