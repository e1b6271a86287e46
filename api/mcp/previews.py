"""Makes small previews of finished images for answers that language models read."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from PIL import Image

from worker.images.metadata import xmp

PREVIEW_MEDIA_TYPE: Final = "image/jpeg"
"""The one format that every client with pictures shows."""

MAX_PREVIEW_BYTES: Final = 100_000

_ATTEMPTS: Final = ((512, 85), (512, 60), (384, 50), (256, 40))
"""Longest side and quality; the last one fits whatever the image shows."""

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="mcp-preview")
"""Few, because each decodes a whole image into memory."""


async def make_preview(file: bytes, mark: str | None) -> bytes:
    """A JPEG of at most MAX_PREVIEW_BYTES bytes, with `mark` as IPTC's digital source type.

    Raises:
        OSError: the file is not a whole image.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _shrink, file, mark)


def _shrink(file: bytes, mark: str | None) -> bytes:
    options = {} if mark is None else {"xmp": xmp(None, mark)}
    with Image.open(io.BytesIO(file)) as opened:
        image = opened.convert("RGB")
    for side, quality in _ATTEMPTS:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="jpeg", quality=quality, optimize=True, **options)
        if buffer.tell() <= MAX_PREVIEW_BYTES:
            break
    return buffer.getvalue()
