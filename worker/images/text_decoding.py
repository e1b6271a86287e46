"""Decodes the texts in image files, whose bytes rarely say truly how they are encoded."""

import re
from typing import Any

_STRUCTURE = re.compile(r"Steps: ?\d|Negative prompt:|\A\s*(?:prompt:\s*)?\{", re.IGNORECASE)
"""What the texts of image generators contain; it tells the right encoding from a wrong one."""

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
USER_COMMENT_CODES = (b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)
"""The first eight bytes of EXIF's UserComment, which name its encoding. Some programs omit them."""


def decode_user_comment(value: Any) -> str | None:
    """The text of EXIF's UserComment; None if there is none."""
    if isinstance(value, str):
        return repair_latin1(value).strip("\0") or None
    if not isinstance(value, bytes) or not value:
        return None
    code = value[:8].upper()
    if code not in USER_COMMENT_CODES:
        return decode_text(value) or None
    text = value[8:]
    if code.startswith(b"JIS") and b"\x1b" in text:
        return text.decode("iso2022_jp", "replace").strip("\0") or None
    return decode_text(text, fallback="cp932" if code.startswith(b"JIS") else "latin-1") or None


def decode_text(data: bytes, *, fallback: str = "latin-1") -> str:
    """Decode UTF-8 or UTF-16 in either byte order, with or without a byte order mark."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").strip("\0")
    if b"\0" in data.rstrip(b"\0"):
        return _decode_utf16(data).strip("\0")
    try:
        return data.decode().strip("\0")
    except UnicodeDecodeError:
        return data.decode(fallback, "replace").strip("\0")


def is_of_unknown_encoding(data: bytes) -> bool:
    """Whether `decode_text` falls back on an encoding that nothing in these bytes proves."""
    if b"\0" in data.rstrip(b"\0") or any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def _decode_utf16(data: bytes) -> str:
    """Decode UTF-16 without a mark. Big-endian, as this service writes, if that makes sense."""
    big, little = (data.decode(f"utf-16-{order}", "replace") for order in ("be", "le"))
    for text in (big, little):
        if _STRUCTURE.search(text):
            return text
    # In text with Latin letters, the places of zero bytes show the order.
    return little if data[1::2].count(0) > data[::2].count(0) else big


def repair_latin1(text: str) -> str:
    """The text, decoded again if a library took another encoding for Latin-1."""
    if text.isascii() and "\0" not in text:
        return text
    try:
        return decode_text(text.encode("latin-1"))
    except UnicodeEncodeError:
        return text
