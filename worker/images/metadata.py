"""Writes and reads the texts inside image files: recipes and the mark of AI-made images.

PNG has text chunks. In other formats, the web UIs' `parameters` are in EXIF and this service's
document is in XMP, because EXIF viewers would show it as a caption.
"""

import html
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.recipes.imported import import_document, one_line, plain_text
from model.recipes.infotext_syntax import is_infotext
from model.recipes.reading import FoundRecipe, read_comfyui, read_text
from model.recipes.recipe import read_document
from model.request import ImageFormat
from worker.images.png_texts import read_png_texts
from worker.images.size_limits import size_problem
from worker.images.text_decoding import (
    USER_COMMENT_CODES,
    decode_text,
    decode_user_comment,
    is_of_unknown_encoding,
    repair_latin1,
)

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

_XMP_ITEM = re.compile(r"<rdf:li\b[^<>]{0,200}>([^<]*+)<")
_TEXT_TAGS = (
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    ExifTags.Base.XPComment,
)
"""Tags in which programs write infotext, JSON, or `prompt:{…}` with the graph of ComfyUI."""


def png_chunks(infotext: str | None, document: str | None, mark: str | None = TRAINED) -> PngInfo:
    """The text chunks of a PNG; ASCII goes into tEXt, other text into iTXt."""
    info = PngInfo()
    if infotext is not None:
        # Programs write UTF-8 as Latin-1 too, so only ASCII is read alike everywhere.
        write = info.add_text if infotext.isascii() else info.add_itxt
        write("parameters", infotext)
    if document is not None:
        info.add_itxt(DOCUMENT_KEY, document)
    if mark is not None:
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

    `infotext` is the text at the place of an infotext, whatever it is. `others` has texts from the
    places of other programs, the best first. `mark` is IPTC's digital source type, of any value.
    `problems` says which texts are left out because the file has several that differ. `unclear` has
    the texts whose encoding is not known.
    """

    document: str | None = None
    infotext: str | None = None
    workflow: str | None = None
    others: tuple[str, ...] = ()
    mark: str | None = None
    problems: tuple[str, ...] = ()
    unclear: frozenset[str] = frozenset()


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
            if problem := size_problem(*image.size):
                raise UnreadableFile(f"{path} cannot be read: {problem[0]}")
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
    return _read_exif(image, _xmp_packet(image))


def find_recipe(texts: ImageTexts) -> FoundRecipe | None:
    """The request in these texts: from the document, else the first text that can be read.

    Raises:
        ValueError: there are texts, but none can be read; says why.
    """
    problems = [*texts.problems]
    if texts.document is not None:
        try:
            imported = import_document(read_document(texts.document))
            return FoundRecipe("kirazuri", imported, texts.document)
        except ValueError as exc:
            problems.append(str(exc))
    candidates = [(read_text, texts.infotext), *((read_text, text) for text in texts.others)]
    for read, text in (*candidates, (read_comfyui, texts.workflow)):
        if text is None:
            continue
        try:
            found = read(text)
        except ValueError as exc:
            problems.append(str(exc))
            continue
        found.imported.note_missing()
        if text in texts.unclear:
            found.imported.notes.insert(
                0, "the encoding of the text is not known: it is neither UTF-8 nor ASCII"
            )
        found.imported.notes[:0] = [
            one_line(problem, 300) + f"; {found.kind} is used instead" for problem in problems
        ]
        return found
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return None


def _read_png(image: Any) -> ImageTexts:
    """Some programs write chunks after the pixels; `load` checks the whole file."""
    texts = read_png_texts(image.fp)
    chunks, problems = _unique_chunks((keyword, text) for keyword, text, _ in texts)
    image.load()
    packet = _xmp_packet(image) or chunks.get("xml:com.adobe.xmp", "")
    others = [chunks.get(key) for key in ("invokeai_metadata", "sd-metadata")]
    if chunks.get("software", "").startswith("NovelAI"):
        keys = {"comment": "Comment", "description": "Description", "source": "Source"}
        novelai = {name: chunks[key] for key, name in keys.items() if key in chunks}
        others.append(json.dumps({"Software": "NovelAI", **novelai}))
    exif = _read_exif(image, packet)
    workflow = _if_json(chunks.get("prompt"))
    if workflow is None:
        others.append(_if_json(chunks.get("workflow")))
    loose = filter(None, (chunks.get(key) for key in ("usercomment", "comment", "description")))
    infotexts = [text for text in loose if is_infotext(text)]
    parameters = chunks.get("parameters")
    if parameters and exif.infotext and _as_read(parameters) != _as_read(exif.infotext):
        problems.append("EXIF has another text than the chunk `parameters`")
    problems += _differences([parameters or "", *infotexts], "text chunks")
    return ImageTexts(
        document=_check_length(chunks.get(DOCUMENT_KEY)),
        infotext=_check_length(parameters or exif.infotext or next(iter(infotexts), None)),
        workflow=_check_length(workflow or exif.workflow),
        others=_check_lengths(*others, _if_json(chunks.get("comment")), *infotexts, *exif.others),
        mark=exif.mark,
        problems=(*problems, *exif.problems),
        unclear=exif.unclear | {text for _, text, is_certain in texts if not is_certain},
    )


def _differences(texts: list[str], place: str) -> tuple[str, ...]:
    """A problem if these texts have infotexts that differ."""
    different = {_as_read(text) for text in texts if is_infotext(text)}
    return (f"the {place} have {len(different)} different infotexts",) if len(different) > 1 else ()


def _unique_chunks(texts: Iterable[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """The texts by keyword in small letters; a keyword with several texts is left out."""
    chunks: dict[str, str] = {}
    several: dict[str, None] = {}
    for keyword, text in texts:
        key = keyword.lower()
        if not _as_read(text):
            continue
        if _as_read(chunks.setdefault(key, text)) != _as_read(text):
            several[key] = None
    for key in several:
        del chunks[key]
    return chunks, [f"the file has several different texts {key!r}" for key in several]


def _as_read(text: str) -> str:
    """A text as readers see it."""
    return plain_text(text).strip()


def _read_exif(image: Image.Image, packet: str) -> ImageTexts:
    """Read what formats without text chunks have: EXIF, XMP and the comment of a JPEG."""
    data, inside = _exif_tags(image)
    tag = ExifTags.Base.UserComment
    values = [inside.get(tag), *(data.get(tag) for tag in (tag, *_TEXT_TAGS))]
    values.append(image.info.get("comment"))
    comments = [decode_user_comment(value) for value in values[:2]]
    decoded = [*comments, *map(_tag_text, values[2:-1]), _jpeg_comment(image)]
    comment, *loose = decoded if decoded[0] else decoded[1:]
    graphs = [text for text in loose if text and text[:7].lower() == "prompt:"]
    infotexts = [text for text in loose if text and is_infotext(text)]
    return ImageTexts(
        document=_find_in_xmp("kirazuri:recipe", packet),
        infotext=_check_length(comment or next(iter(infotexts), None)),
        workflow=_check_length(graphs[0][7:].strip() if graphs else None),
        others=_check_lengths(
            *map(_if_json, loose), *infotexts[: 1 if comment else 0], _draw_things(packet)
        ),
        mark=_find_in_xmp(":DigitalSourceType", packet),
        problems=_differences([comment or "", *infotexts], "tags of EXIF and the comments"),
        unclear=frozenset(
            text for value, text in zip(values, decoded, strict=True) if text and _is_unclear(value)
        ),
    )


def _exif_tags(image: Image.Image) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """The first directory of EXIF and the one inside it; both empty if EXIF is broken."""
    try:
        data = image.getexif()
        return data, data.get_ifd(ExifTags.IFD.Exif)
    except (OSError, SyntaxError, ValueError, struct.error):
        return {}, {}


def _is_unclear(value: Any) -> bool:
    """Whether the encoding of a tag or comment is not known; Pillow decodes some as Latin-1."""
    try:
        data = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError:
        return False
    if not isinstance(data, bytes) or data[:3] == b"JIS":
        return False
    return is_of_unknown_encoding(data[8:] if data[:8].upper() in USER_COMMENT_CODES else data)


def _tag_text(value: Any) -> str | None:
    """The text of an EXIF tag."""
    text = decode_text(value) if isinstance(value, bytes) else value
    return repair_latin1(text).strip("\0 ") if isinstance(text, str) else None


def _jpeg_comment(image: Image.Image) -> str | None:
    comment = image.info.get("comment")
    return decode_text(comment) if isinstance(comment, bytes) else None


def _if_json(text: str | None) -> str | None:
    """The text if it looks like a JSON object, which ordinary comments do not."""
    return text if text is not None and text.lstrip()[:1] == "{" else None


def _draw_things(packet: str) -> str | None:
    """The JSON that Draw Things writes as UserComment into XMP."""
    start = packet.find("<exif:UserComment")
    found = _XMP_ITEM.search(packet, start, start + _MAX_TEXT_CHARS) if start >= 0 else None
    return _if_json(html.unescape(found[1])) if found else None


def _xmp_packet(image: Image.Image) -> str:
    packet = image.info.get("xmp", b"")
    return packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)


def _find_in_xmp(name: str, packet: str) -> str | None:
    """The value of an attribute or element of this name."""
    for place in islice(re.finditer(re.escape(name), packet), _MOST_PLACES):
        if found := _VALUE.match(packet, place.end()):
            return _check_length(html.unescape(next(filter(None, found.groups()), "")))
    return None


def _check_length(text: str | None) -> str | None:
    if text is not None and len(text) > _MAX_TEXT_CHARS:
        raise UnreadableFile(f"a text of {len(text)} characters; at most {_MAX_TEXT_CHARS}")
    return text or None


def _check_lengths(*texts: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(_check_length, texts))))
