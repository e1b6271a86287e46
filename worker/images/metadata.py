"""Writes and reads the texts inside image files: recipes and the mark of AI-made images.

PNG has text chunks. In other formats, the web UIs' `parameters` are in EXIF and this service's
document is in XMP, because EXIF viewers would show it as a caption.
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
"""Keyword of the document's text chunk in a PNG."""

LONGEST_JPEG_EXIF = 65_533
LONGEST_JPEG_XMP = 65_504
"""Maximum bytes in one segment of a JPEG."""

MAX_FILE_BYTES = 200_000_000
_MAX_TEXT_CHARS = 5_000_000

EXTENSIONS: dict[ImageFormat, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "avif": "avif"}
"""File extension of each format."""

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = f"{_SOURCE_TYPES}trainedAlgorithmicMedia"
COMPOSITE = f"{_SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
GENERATED = frozenset({TRAINED, COMPOSITE})
"""IPTC's marks: made by a trained model, from nothing or from an image of the client."""

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
"""Maximum occurrences of a name that are parsed: it may be part of other words."""

_COMFY_TAGS = (ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model)
"""Tags in which ComfyUI and its extensions write `prompt:{…}` in formats without text chunks."""


def png_chunks(infotext: str | None, document: str | None, mark: str = TRAINED) -> PngInfo:
    """The text chunks of a PNG; Latin-1 text goes into tEXt, other text into iTXt."""
    info = PngInfo()
    if infotext is not None:
        info.add_text("parameters", infotext)
    if document is not None:
        info.add_itxt(DOCUMENT_KEY, document)
    info.add_itxt("XML:com.adobe.xmp", xmp(None, mark).decode())
    return info


def exif(infotext: str) -> bytes:
    """EXIF with the text as UserComment: the code UNICODE, then UTF-16 big-endian."""
    data = Image.Exif()
    comment = b"UNICODE\0" + infotext.encode("utf-16-be")
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return data.tobytes()


def xmp(document: str | None, mark: str = TRAINED) -> bytes:
    """An XMP packet with IPTC's mark, and the document if there is one."""
    own = ""
    if document is not None:
        # XML must not contain these two characters in any form; JSON can escape them.
        allowed = re.sub("[\ufffe\uffff]", lambda odd: f"\\u{ord(odd[0]):04x}", document)
        own = _OWN.format(document=quoteattr(allowed))
    return _XMP.format(mark=mark, own=own).encode()


class UnreadableFile(ValueError):
    """The file is not an image, is broken or is too large."""


@dataclass(frozen=True, slots=True)
class ImageTexts:
    """The texts in a file: the document, the web UIs' infotext, ComfyUI's graph (JSON).

    `mark` is IPTC's digital source type, of any value.
    """

    document: str | None = None
    infotext: str | None = None
    workflow: str | None = None
    mark: str | None = None


class FoundRecipe(NamedTuple):
    """The request in a file, and the format it was read from."""

    kind: Literal["kirazuri", "infotext", "comfyui"]
    imported: ImportedRequest


def read_metadata(path: Path) -> ImageTexts:
    """Read the texts of a PNG, WebP, JPEG or AVIF file.

    Raises:
        UnreadableFile: there is no such file, or it is not a whole image of these formats.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read")
        with Image.open(path, formats=("PNG", "WEBP", "JPEG", "AVIF")) as image:
            return read_image_texts(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        if isinstance(exc, UnreadableFile):
            raise
        raise UnreadableFile(f"{path} cannot be read: {exc}") from exc


def read_image_texts(image: Image.Image) -> ImageTexts:
    """Read the texts of an opened file. Decodes a PNG, whose texts may come after the pixels.

    Raises:
        UnreadableFile: a text is too long.
        OSError, SyntaxError, ValueError: Pillow cannot read the file.
    """
    if image.format == "PNG":
        return _read_png(image)
    return _read_exif(image)


def find_recipe(texts: ImageTexts) -> FoundRecipe | None:
    """The request in these texts: from the document, else the infotext, else ComfyUI's graph.

    If the document cannot be read, the infotext is used.

    Raises:
        ValueError: the texts cannot be read.
    """
    notes = []
    if texts.document is not None:
        try:
            return FoundRecipe("kirazuri", import_document(read_document(texts.document)))
        except ValueError as exc:
            if texts.infotext is None:
                raise
            notes.append(f"{exc}; the infotext is used instead")
    if texts.infotext is not None:
        imported = read_infotext(texts.infotext)
        imported.notes[:0] = notes
        return FoundRecipe("infotext", imported)
    if texts.workflow is not None:
        return FoundRecipe("comfyui", read_workflow(texts.workflow))
    return None


def _read_png(image: Any) -> ImageTexts:
    """Some programs write chunks after the pixels; `text` reads the whole file for them."""
    found = image.text
    return ImageTexts(
        document=_check_length(found.get(DOCUMENT_KEY)),
        infotext=_check_length(found.get("parameters")),
        workflow=_check_length(found.get("prompt")),
        mark=_find_in_xmp(":DigitalSourceType", _xmp_packet(image)),
    )


def _read_exif(image: Image.Image) -> ImageTexts:
    data = image.getexif()
    comment = data.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    packet = _xmp_packet(image)
    graphs = (_comfy_graph(data.get(tag)) for tag in _COMFY_TAGS)
    return ImageTexts(
        document=_find_in_xmp("kirazuri:recipe", packet),
        infotext=_check_length(_decode_user_comment(comment)),
        workflow=_check_length(next((graph for graph in graphs if graph), None)),
        mark=_find_in_xmp(":DigitalSourceType", packet),
    )


def _xmp_packet(image: Image.Image) -> str:
    packet = image.info.get("xmp", b"")
    return packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)


def _find_in_xmp(name: str, packet: str) -> str | None:
    """The value of an attribute or element of this name."""
    for place in islice(re.finditer(re.escape(name), packet), _MOST_PLACES):
        if found := _VALUE.match(packet, place.end()):
            return _check_length(html.unescape(next(filter(None, found.groups()), "")))
    return None


def _decode_user_comment(value: Any) -> str | None:
    """The text of EXIF's UserComment. Eight bytes name its encoding; some programs omit them."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, bytes) or not value:
        return None
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        # Usually big-endian. In text with Latin letters, the places of zero bytes show the order.
        is_little = text[1::2].count(0) > text[::2].count(0)
        return text.decode("utf-16-le" if is_little else "utf-16-be", "replace")
    if code == b"ASCII\0\0\0":
        return text.decode("utf-8", "replace")
    return value.decode("utf-8", "replace")


def _comfy_graph(value: Any) -> str | None:
    if isinstance(value, str) and value[:7].lower() == "prompt:":
        return value[7:].strip("\0 ")
    return None


def _check_length(text: str | None) -> str | None:
    if text is not None and len(text) > _MAX_TEXT_CHARS:
        raise UnreadableFile(f"a text of {len(text)} characters; at most {_MAX_TEXT_CHARS}")
    return text or None
