"""Pixels to files: PNG, WebP, JPEG, AVIF, with the recipe and the mark of AI-made pictures.

The recipe is the `parameters` text of the A1111 web UI, which most tools read; the mark is the
IPTC digital source type "trained algorithmic media". Knows neither jobs nor where files go.
"""

import base64
import io
import json
import logging
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.request import ImageFormat, ResolvedRequest
from model.sampler_names import DISPLAY_NAMES, SCHEDULE_DISPLAY_NAMES

logger = logging.getLogger(__name__)

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "avif": "avif"}

_PNG_COMPRESS_LEVEL = 4
_FULL_CHROMA_QUALITY = 85
"""From this quality on, flat colours keep their edges: no chroma subsampling."""

_PREVIEW_QUALITY = 70

_LONGEST_JPEG_EXIF = 65_533

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    " Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
    '<?xpacket end="w"?>'
)


def infotext(
    request: ResolvedRequest, *, seed: int, model_name: str, model_hash: str, version: str
) -> str:
    """The recipe of one picture as the A1111 web UI writes it.

    Prompt, then a `Negative prompt:` line (also when empty: readers look for it), then
    `key: value` pairs. `model_hash` is the checkpoint's SHA-256, of which ten digits are shown.
    """
    pairs = {
        "Steps": request.steps,
        "Sampler": DISPLAY_NAMES[request.sampler],
        "Schedule type": SCHEDULE_DISPLAY_NAMES[request.scheduler],
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash[:10],
        "Model": model_name,
        "Version": version,
    }
    recipe = ", ".join(
        f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value != ""
    )
    return f"{request.prompt}\nNegative prompt: {request.negative_prompt}\n{recipe}"


def _quoted(value: str) -> str:
    """A value with a separator in it is written as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def encode(
    pixels: NDArray[numpy.uint8],
    *,
    request: ResolvedRequest,
    seed: int,
    model_name: str,
    model_hash: str,
    version: str,
) -> bytes:
    """One picture, (height, width, 3) uint8 RGB, as a file in the request's format.

    `request.metadata` says what is written into it: `full` the recipe and the mark, `minimal`
    the mark alone, `none` neither.
    """
    text = None
    if request.metadata == "full":
        text = infotext(
            request, seed=seed, model_name=model_name, model_hash=model_hash, version=version
        )
    options = _options(request, text=text, is_marked=request.metadata != "none")
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, format=request.image_format, **options)
    return buffer.getvalue()


def preview_url(pixels: NDArray[numpy.uint8]) -> str:
    """A small picture, (height, width, 3) uint8 RGB, as a WebP data URL of a few kilobytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, format="webp", quality=_PREVIEW_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _options(request: ResolvedRequest, *, text: str | None, is_marked: bool) -> dict[str, Any]:
    """What Pillow needs to know to write this format."""
    quality = request.image_quality
    if request.image_format == "png":
        return {
            "compress_level": _PNG_COMPRESS_LEVEL,
            "pnginfo": _png_text(text, is_marked=is_marked),
        }
    options: dict[str, Any] = {"quality": quality}
    if is_marked:
        options["xmp"] = _XMP.encode()
    if text is not None:
        options["exif"] = _exif(text)
    has_full_chroma = quality >= _FULL_CHROMA_QUALITY
    if request.image_format == "webp":
        options["method"] = 4
    elif request.image_format == "avif":
        options |= {"subsampling": "4:4:4" if has_full_chroma else "4:2:0", "speed": 8}
    else:
        options |= {"subsampling": 0 if has_full_chroma else 2, "optimize": True}
        if len(options.get("exif", b"")) > _LONGEST_JPEG_EXIF:
            logger.warning("the prompt is too long for a JPEG's EXIF; the file tells no recipe")
            del options["exif"]
    return options


def _png_text(text: str | None, *, is_marked: bool) -> PngInfo:
    """Text chunks before the picture; Latin-1 goes into tEXt, everything else into iTXt."""
    info = PngInfo()
    if text is not None:
        info.add_text("parameters", text)
    if is_marked:
        info.add_itxt("XML:com.adobe.xmp", _XMP)
    return info


def _exif(text: str) -> bytes:
    """EXIF with the text as UserComment: the UNICODE mark, then UTF-16 big-endian."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(
        "utf-16-be"
    )
    return exif.tobytes()
