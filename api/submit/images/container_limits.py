"""Counts the parts of image files: chunks, segments and boxes.

Decoders need microseconds for each part of a PNG, JPEG or WebP, and the time of the C2PA library
grows with the square of an AVIF's boxes: 15 MB of empty parts took over half a minute.
"""

from collections.abc import Iterator

MAX_PARTS = 10_000
"""A 16 MB PNG with the usual 8 kB chunks has two thousand."""

_SMALLEST_BOX = 8
_NO_BOXES_INSIDE = frozenset({b"mdat", b"uuid", b"free", b"skip"})
_WITHOUT_LENGTH = frozenset(range(0xD0, 0xDA))


def has_too_many_parts(data: bytes) -> bool:
    """Whether a PNG, JPEG, WebP or AVIF has more than MAX_PARTS; False for other formats."""
    left = MAX_PARTS
    for parts in _parts(data):
        left -= parts
        if left < 0:
            return True
    return False


def _parts(data: bytes) -> Iterator[int]:
    if data[:4] == b"\x89PNG":
        return _chunks(data, start=8, is_png=True)
    if data[:4] == b"RIFF":
        return _chunks(data, start=12, is_png=False)
    if data[:2] == b"\xff\xd8":
        return _segments(data)
    if data[4:8] == b"ftyp":
        return _boxes(data)
    return iter(())


def _chunks(data: bytes, *, start: int, is_png: bool) -> Iterator[int]:
    while start < len(data):
        head = data[start : start + 8]
        size = int.from_bytes(head[:4], "big") if is_png else int.from_bytes(head[4:], "little")
        start += size + 12 if is_png else size + (size & 1) + 8
        yield 1


def _segments(data: bytes) -> Iterator[int]:
    """JPEG segments up to the first scan; each byte between segments counts as one."""
    start = 2
    while start < len(data):
        yield 1
        marker = data[start + 1 : start + 2]
        if data[start] != 0xFF or marker == b"\xff":
            start += 1
        elif marker == b"\xda":
            return
        elif not marker or marker == b"\0" or marker[0] in _WITHOUT_LENGTH:
            start += 2
        else:
            start += 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))


def _boxes(data: bytes) -> Iterator[int]:
    """AVIF boxes. For boxes that may nest, the most that fit inside are counted."""
    start = 0
    while start < len(data):
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        size = min(size or len(data), len(data) - start)
        yield 1 if kind in _NO_BOXES_INSIDE else 1 + size // _SMALLEST_BOX
        start += max(size, _SMALLEST_BOX)
