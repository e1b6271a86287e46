"""Decodes images that clients send, within limits on pixels, JPEG scans and container parts."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageOps

from api.submit.images.container_limits import MAX_PARTS, has_too_many_parts
from model.request import ImageFormat
from worker.images.metadata import ImageTexts, read_image_texts
from worker.images.size_limits import MAX_PIXELS, size_problem

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_FORMAT_NAMES: dict[str, ImageFormat] = {
    "PNG": "png",
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "WEBP": "webp",
    "AVIF": "avif",
}
"""Pillow's format names and ours. A phone's JPEG with an embedded preview is an MPO."""

MAX_SCANS = 100
"""Maximum JPEG scans: each costs a full decode pass but only a dozen bytes to request."""

Size = tuple[int, int]
"""Width and height in pixels."""


class InputImageRefused(ValueError):
    """An image that cannot be used; `limit` is the limit that it exceeds, if there is one."""

    def __init__(self, reason: str, limit: int | str | None = None) -> None:
        super().__init__(reason)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Format, stored size and embedded texts of an image file."""

    format: ImageFormat
    size: Size
    texts: ImageTexts


def decode_image(data: bytes) -> Image.Image:
    """Decode a single image within the size limits and apply its EXIF orientation.

    Raises:
        InputImageRefused: unsupported format, too large, animated, or broken.
    """
    with _open_checked(data) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def read_image_info(data: bytes) -> ImageInfo:
    """Read format, size and texts of a single image without decoding its pixels.

    Raises:
        InputImageRefused: as `decode_image`.
    """
    with _open_checked(data) as image:
        return ImageInfo(_FORMAT_NAMES[image.format or ""], image.size, read_image_texts(image))


def size_text(size: Size) -> str:
    """The size as `WIDTHxHEIGHT`."""
    return f"{size[0]}x{size[1]}"


@contextmanager
def _open_checked(data: bytes) -> Iterator[Image.Image]:
    """Open an image that keeps to the limits; every failure is InputImageRefused."""
    if has_too_many_parts(data):
        raise InputImageRefused("the file has too many parts", MAX_PARTS)
    try:
        with Image.open(io.BytesIO(data), formats=INPUT_FORMATS) as image:
            _check_header(image, data)
            yield image
    except InputImageRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise InputImageRefused("the image has too many pixels", MAX_PIXELS) from exc
    except Exception as exc:
        # Pillow's decoders raise exceptions of any type for broken files.
        raise InputImageRefused(f"cannot be read as one of {', '.join(INPUT_FORMATS)}") from exc


def _check_header(image: Image.Image, data: bytes) -> None:
    """Check what decoding would cost, before it begins."""
    if problem := size_problem(*image.size):
        raise InputImageRefused(*problem)
    if image.format in ("JPEG", "MPO") and has_too_many_scans(data):
        raise InputImageRefused("the JPEG has too many scans", MAX_SCANS)
    # The second frame of an MPO is a preview.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InputImageRefused("the image is animated; send a single frame")


def has_too_many_scans(data: bytes) -> bool:
    """Whether a JPEG has more than MAX_SCANS scans."""
    place = -2
    for _ in range(MAX_SCANS + 1):
        place = data.find(b"\xff\xda", place + 2)
        if place < 0:
            return False
    return True
