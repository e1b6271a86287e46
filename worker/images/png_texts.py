"""Reads every text chunk of a PNG file, also those of which Pillow keeps only the last."""

import struct
from typing import IO

from PIL.PngImagePlugin import PngStream, iTXt

from worker.images.text_decoding import repair_latin1

_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_SIGNATURE_BYTES = 8
_CHECKSUM_BYTES = 4


def read_png_texts(file: IO[bytes]) -> list[tuple[str, str]]:
    """Keyword and text of all text chunks in their order. Keeps the position in the file.

    Raises:
        OSError, ValueError: Pillow cannot read a chunk.
    """
    start = file.tell()
    found: list[tuple[str, str]] = []
    try:
        file.seek(_SIGNATURE_BYTES)
        stream = PngStream(file)
        while True:
            kind, position, length = stream.read()
            if kind in _TEXT_CHUNKS:
                stream.im_text.clear()
                stream.call(kind, position, length)
                found += [(keyword, _decoded(text)) for keyword, text in stream.im_text.items()]
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


def _decoded(text: str | iTXt) -> str:
    """Texts of tEXt and zTXt are Latin-1 by definition; programs write other encodings."""
    return text if isinstance(text, iTXt) else repair_latin1(text)
