"""Reads the colours of hair, background and clothes from a picture, without a network.

A colour is the median over fixed boxes of the composition, named after the nearest palette
entry in CIELAB.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.pictures.avatars import BACKGROUNDS, HAIR_COLORS, OUTFIT_COLORS, Color
from training.pictures.composition import head_center, unit

Box = tuple[float, float, float, float]

# Left, top, right, bottom: in the composition's unit, from the middle of the face.
HAIR_BOX: Box = (-0.07, -0.25, 0.13, -0.19)
OUTFIT_BOXES: tuple[Box, ...] = ((-0.23, 0.49, -0.14, 0.54), (0.14, 0.49, 0.23, 0.54))
# The background's boxes are the upper corners: width and height in units.
CORNER = (0.08, 0.10)


def read_colors(image: Image.Image) -> dict[str, str]:
    """The names of `hair_color`, `background` and `outfit_color`, as in `Avatar`."""
    pixels = np.asarray(image.convert("RGB"))
    corners = _corners(image.width, image.height)
    return {
        "hair_color": nearest(_median(pixels, [_placed(HAIR_BOX, image)]), HAIR_COLORS),
        "background": nearest(_median(pixels, corners), BACKGROUNDS),
        "outfit_color": nearest(
            _median(pixels, [_placed(box, image) for box in OUTFIT_BOXES]), OUTFIT_COLORS
        ),
    }


def nearest(color: Color, palette: dict[str, Color]) -> str:
    """The name of the palette entry that is nearest to the colour in CIELAB."""
    names = list(palette)
    labs = to_lab(np.array([palette[name] for name in names]))
    return names[int(np.linalg.norm(labs - to_lab(np.array(color)), axis=1).argmin())]


def to_lab(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """Convert sRGB in 0..255, last axis 3, to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    s = rgb.astype(np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    lab: NDArray[np.float64] = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return lab


def _placed(box: Box, image: Image.Image) -> tuple[int, int, int, int]:
    """Convert a box around the face to pixels, clipped to the picture."""
    x, y = head_center(image.width, image.height)
    scale = unit(image.width, image.height)
    left, top = max(0, round(x + box[0] * scale)), max(0, round(y + box[1] * scale))
    right, bottom = round(x + box[2] * scale), round(y + box[3] * scale)
    return left, top, min(image.width, right), min(image.height, bottom)


def _corners(width: int, height: int) -> list[tuple[int, int, int, int]]:
    dx, dy = (max(1, round(part * unit(width, height))) for part in CORNER)
    return [(0, 0, dx, dy), (width - dx, 0, width, dy)]


def _median(pixels: NDArray[np.uint8], boxes: list[tuple[int, int, int, int]]) -> Color:
    """Median of each channel over all boxes together."""
    parts = [pixels[top:bottom, left:right].reshape(-1, 3) for left, top, right, bottom in boxes]
    red, green, blue = np.median(np.concatenate(parts), axis=0)
    return round(red), round(green), round(blue)
