"""Draws images and encodes them as files and in base64."""

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

SIZE = (128, 128)


def draw_image(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """A red image with a blue square in its upper left corner."""
    image = Image.new("RGB", size, (220, 30, 40))
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 4, size[1] // 4), fill=(20, 40, 230))
    return image.convert(mode)


def to_base64(data: bytes | Image.Image) -> str:
    data = data if isinstance(data, bytes) else encode_file(data)
    return base64.b64encode(data).decode()


def encode_file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The decoded image of a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
