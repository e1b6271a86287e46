"""Drawn images, as files and as JSON carries them."""

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

SIZE = (128, 128)


def drawn(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """A red picture with a blue square in its upper left quarter."""
    image = Image.new("RGB", size, (220, 30, 40))
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 4, size[1] // 4), fill=(20, 40, 230))
    return image.convert(mode)


def coded(data: bytes | Image.Image) -> str:
    data = data if isinstance(data, bytes) else file_of(data)
    return base64.b64encode(data).decode()


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The decoded image of a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
