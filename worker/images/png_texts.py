"""Reads every text chunk of a PNG file, also those of which Pillow keeps only the last."""

import struct
from typing import IO, NamedTuple

from PIL.PngImagePlugin import PngStream, iTXt

from worker.images.text_decoding import is_of_unknown_encoding, repair_latin1

_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_SIGNATURE_BYTES = 8
_CHECKSUM_BYTES = 4


class PngText(NamedTuple):
    """A text chunk; `is_certain` is false if its encoding is not known."""

    keyword: str
    text: str
    is_certain: bool


def read_png_texts(file: IO[bytes]) -> list[PngText]:
    """All text chunks in their order. Keeps the position in the file.

    Raises:
        OSError, ValueError: Pillow cannot read a chunk.
    """
    start = file.tell()
    found: list[PngText] = []
    try:
        file.seek(_SIGNATURE_BYTES)
        stream = PngStream(file)
        while True:
            kind, position, length = stream.read()
            if kind in _TEXT_CHUNKS:
                stream.im_text.clear()
                stream.call(kind, position, length)
                found += [_decoded(keyword, text) for keyword, text in stream.im_text.items()]
            file.seek(position + length + _CHECKSUM_BYTES)
            if kind == b"IEND":
                return found
    except (
        struct.error,
        SyntaxError,
        UnicodeDecodeError,
    ):  # Pillow too ignores errors after the pixels
        return found
    finally:
        file.seek(start)


def _decoded(keyword: str, text: str | iTXt) -> PngText:
    """Texts of tEXt and zTXt are Latin-1 by definition; programs write other encodings."""
    if isinstance(text, iTXt):
        return PngText(keyword, text, is_certain=True)
    is_certain = not is_of_unknown_encoding(text.encode("latin-1"))
    return PngText(keyword, repair_latin1(text), is_certain)
