"""Encodes pixels as PNG, WebP, JPEG or AVIF, with the recipe and the mark of AI-made images."""

import base64
import io
import logging
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image

from model.recipes.infotext import write_infotext
from model.recipes.recipe import Recipe, write_document
from model.resolved_request import ResolvedRequest
from worker.images import metadata
from worker.images.png import encode_png

logger = logging.getLogger(__name__)

_FULL_CHROMA_QUALITY = 85
"""No chroma subsampling from this quality on, so that flat colours keep sharp edges."""

_WEBP_METHOD = 2
"""Half the time of Pillow's default, 4, at 1.02 of its size."""

_PREVIEW_QUALITY = 70

_Texts = tuple[str | None, str | None]
"""The texts of a file: the web UIs' infotext and this service's JSON document."""


def encode_image(
    pixels: NDArray[numpy.uint8],
    *,
    request: ResolvedRequest,
    recipe: Recipe,
    seed: int,
) -> bytes:
    """An image, (height, width, 3) uint8 RGB, as a file in the request's format.

    `request.metadata` selects its texts: `full` writes the recipe and the mark, `minimal` the mark
    only, `none` neither.
    """
    texts: _Texts = (None, None)
    if request.metadata == "full":
        texts = (
            write_infotext(request, recipe, seed=seed),
            write_document(request, recipe, seed=seed),
        )
    mark = digital_source_type(request) if request.metadata != "none" else None
    if request.image_format == "png":
        return encode_png(pixels, metadata.png_chunks(*texts, mark))
    options = _options(request, texts, mark)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, format=request.image_format, **options)
    return buffer.getvalue()


def digital_source_type(request: ResolvedRequest) -> str:
    """IPTC's digital source type of the request's images."""
    return metadata.COMPOSITE if request.init_image else metadata.TRAINED


def preview_data_url(pixels: NDArray[numpy.uint8]) -> str:
    """A small image, (height, width, 3) uint8 RGB, as a WebP data URL of a few kilobytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(
        buffer, format="webp", quality=_PREVIEW_QUALITY, method=_WEBP_METHOD
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def decode_image(data: bytes) -> NDArray[numpy.uint8]:
    """The pixels of a stored file, (height, width, 3) uint8 RGB. Raises OSError if it is broken."""
    with Image.open(io.BytesIO(data)) as image:
        return numpy.asarray(image.convert("RGB"))


def _options(request: ResolvedRequest, texts: _Texts, mark: str | None) -> dict[str, Any]:
    """Pillow's options for a WebP, JPEG or AVIF file."""
    quality = request.image_quality
    options: dict[str, Any] = {"quality": quality}
    has_full_chroma = quality >= _FULL_CHROMA_QUALITY
    if request.image_format == "webp":
        options["method"] = _WEBP_METHOD
    elif request.image_format == "avif":
        options |= {"subsampling": "4:4:4" if has_full_chroma else "4:2:0", "speed": 8}
    else:
        options |= {"subsampling": 0 if has_full_chroma else 2, "optimize": True}
        texts = _fit_into_jpeg(texts)
    infotext, document = texts
    if mark is not None:
        options["xmp"] = metadata.xmp(document, mark)
    if infotext is not None:
        options["exif"] = metadata.exif(infotext)
    return options


def _fit_into_jpeg(texts: _Texts) -> _Texts:
    """The texts that fit into their JPEG segments; the log names those that do not."""
    infotext, document = texts
    if infotext is not None and len(metadata.exif(infotext)) > metadata.LONGEST_JPEG_EXIF:
        logger.warning("the prompt is too long for a JPEG's EXIF; the file has no infotext")
        infotext = None
    if (
        document is not None
        and len(metadata.xmp(document, metadata.COMPOSITE)) > metadata.LONGEST_JPEG_XMP
    ):
        logger.warning("the prompt is too long for a JPEG's XMP; the file has no recipe")
        document = None
    return infotext, document
