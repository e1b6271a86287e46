"""Text inside picture files: recipes and the mark of AI-made pictures, written and read.

A PNG has text chunks; the other formats have EXIF for the web UIs' `parameters` and XMP for our
own document, which EXIF viewers would show as a caption. Knows neither pixels nor jobs.
"""

import html
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.recipes.comfy_workflow import read_workflow
from model.recipes.imported import ImportedRequest, import_document
from model.recipes.infotext import read_infotext
from model.recipes.recipe import read_document
from model.request import ImageFormat

DOCUMENT_KEY = "kirazuri"
"""Keyword of our document's chunk in a PNG, and its name in XMP."""

LONGEST_JPEG_EXIF = 65_533
LONGEST_JPEG_XMP = 65_504
"""Bytes that fit into one segment of a JPEG."""

MAX_FILE_BYTES = 200_000_000
_MAX_TEXT_CHARS = 5_000_000

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "avif": "avif"}
"""What the name of a file of each format ends in."""

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = f"{_SOURCE_TYPES}trainedAlgorithmicMedia"
COMPOSITE = f"{_SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
GENERATED = frozenset({TRAINED, COMPOSITE})
"""IPTC's marks: made by a trained model, or by one from a picture that came with the request."""

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="{mark}"{own}/>'
    "</rdf:RDF></x:xmpmeta>"
    '<?xpacket end="w"?>'
)
_OWN = ' xmlns:kirazuri="urn:kirazuri:recipe#" kirazuri:recipe={document}'

# Programs that rewrite XMP may turn an attribute into an element.
_VALUE = re.compile(r"""(?:\s+rdf:resource)?(?:\s*=\s*(?:"([^"]*+)"|'([^']*+)')|\s*>([^<]*+)<)""")
_MOST_PLACES = 8
"""Where a name is looked at: it may be part of other words, and each place may cost a reading."""

_COMFY_TAGS = (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model)
"""Where ComfyUI and its extensions put `prompt:{…}` into formats without text chunks."""


def png_chunks(infotext: str | None, document: str | None, mark: str = TRAINED) -> PngInfo:
    """Text chunks with the mark; Latin-1 goes into tEXt, everything else into iTXt."""
    info = PngInfo()
    if infotext is not None:
        info.add_text("parameters", infotext)
    if document is not None:
        info.add_itxt(DOCUMENT_KEY, document)
    info.add_itxt("XML:com.adobe.xmp", xmp(None, mark).decode())
    return info


def exif(infotext: str) -> bytes:
    """EXIF with the text as UserComment: the UNICODE mark, then UTF-16 big-endian."""
    data = Image.Exif()
    comment = b"UNICODE\0" + infotext.encode("utf-16-be")
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return data.tobytes()


def xmp(document: str | None, mark: str = TRAINED) -> bytes:
    """IPTC's mark, and the document where there is one."""
    own = ""
    if document is not None:
        # JSON may escape any character; XML may not hold these two in any form.
        allowed = re.sub("[\ufffe\uffff]", lambda odd: f"\\u{ord(odd[0]):04x}", document)
        own = _OWN.format(document=quoteattr(allowed))
    return _XMP.format(mark=mark, own=own).encode()


class UnreadableFile(ValueError):
    """A file that is no picture, is broken or too large."""


@dataclass(frozen=True, slots=True)
class ImageTexts:
    """The texts found in a file: our document, the web UIs' infotext, ComfyUI's graph (JSON).

    `mark` is IPTC's digital source type, whatever it is.
    """

    document: str | None = None
    infotext: str | None = None
    workflow: str | None = None
    mark: str | None = None


class FoundRecipe(NamedTuple):
    """What a file asks for, and in whose words it does."""

    kind: Literal["kirazuri", "infotext", "comfyui"]
    reading: ImportedRequest


def read_metadata(path: Path) -> ImageTexts:
    """What a PNG, WebP, JPEG or AVIF file tells of how it was made.

    Raises:
        UnreadablePicture: no such file, or not a whole picture of these formats.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read")
        with Image.open(path, formats=("PNG", "WEBP", "JPEG", "AVIF")) as image:
            return texts_of(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        if isinstance(exc, UnreadableFile):
            raise
        raise UnreadableFile(f"{path} cannot be read: {exc}") from exc


def texts_of(image: Image.Image) -> ImageTexts:
    """What an opened file tells; decodes a PNG, since texts may come after the pixels.

    Raises:
        UnreadablePicture: a text is too long. What Pillow raises at broken files goes through.
    """
    if image.format == "PNG":
        return _read_png(image)
    return _read_exif(image)


def read_recipe(inside: ImageTexts) -> FoundRecipe | None:
    """The best of what is there; a document that cannot be read leaves the infotext beside it.

    Raises:
        ValueError: what there is cannot be read.
    """
    notes = []
    if inside.document is not None:
        try:
            return FoundRecipe("kirazuri", import_document(read_document(inside.document)))
        except ValueError as exc:
            if inside.infotext is None:
                raise
            notes.append(f"{exc}; the infotext is taken instead")
    if inside.infotext is not None:
        reading = read_infotext(inside.infotext)
        reading.notes[:0] = notes
        return FoundRecipe("infotext", reading)
    if inside.workflow is not None:
        return FoundRecipe("comfyui", read_workflow(inside.workflow))
    return None


def _read_png(image: Any) -> ImageTexts:
    """Some programs write chunks after the pixels; `text` reads through to them."""
    found = image.text
    return ImageTexts(
        document=_bounded(found.get(DOCUMENT_KEY)),
        infotext=_bounded(found.get("parameters")),
        workflow=_bounded(found.get("prompt")),
        mark=_in_xmp(":DigitalSourceType", _packet(image)),
    )


def _read_exif(image: Image.Image) -> ImageTexts:
    data = image.getexif()
    comment = data.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    packet = _packet(image)
    graphs = (_graph(data.get(tag)) for tag in _COMFY_TAGS)
    return ImageTexts(
        document=_in_xmp("kirazuri:recipe", packet),
        infotext=_bounded(_comment(comment)),
        workflow=_bounded(next((graph for graph in graphs if graph), None)),
        mark=_in_xmp(":DigitalSourceType", packet),
    )


def _packet(image: Image.Image) -> str:
    packet = image.info.get("xmp", b"")
    return packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)


def _in_xmp(name: str, packet: str) -> str | None:
    """The value of an attribute or element."""
    for place in islice(re.finditer(re.escape(name), packet), _MOST_PLACES):
        if found := _VALUE.match(packet, place.end()):
            return _bounded(html.unescape(next(filter(None, found.groups()), "")))
    return None


def _comment(value: Any) -> str | None:
    """EXIF's UserComment: eight bytes name the encoding. Some programs write plain text."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, bytes) or not value:
        return None
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        # Big-endian by custom; a text in Latin letters shows by its zero bytes where it is not.
        is_little = text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if is_little else "utf-16-be", "replace")
    if code == b"ASCII\0\0\0":
        return text.decode("utf-8", "replace")
    return value.decode("utf-8", "replace")


def _graph(value: Any) -> str | None:
    if isinstance(value, str) and value[:7].lower() == "prompt:":
        return value[7:].strip("\0 ")
    return None


def _bounded(text: str | None) -> str | None:
    if text is not None and len(text) > _MAX_TEXT_CHARS:
        raise UnreadableFile(f"a text of {len(text)} characters; at most {_MAX_TEXT_CHARS}")
    return text or None
