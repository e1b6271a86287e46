"""Files of very many parts, which decoders would be at for minutes."""

import io
import struct
import zlib

import pytest
from PIL import Image

from api.submit.images.container_limits import MAX_PARTS, has_too_many_parts
from api.submit.images.decoding import InputImageRefused, decode_image, read_image_info


def saved(file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, file_format, **options)
    return buffer.getvalue()


def png(chunks: bytes) -> bytes:
    data = saved("PNG")
    return data[:33] + chunks + data[33:]


def chunk(kind: bytes) -> bytes:
    return bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))


def webp(chunks: bytes) -> bytes:
    size = struct.pack("<I", len(saved("WEBP")) - 8 + len(chunks))
    return b"RIFF" + size + saved("WEBP")[8:] + chunks


def box(kind: bytes, inside: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(inside)) + kind + inside


MANY = MAX_PARTS + 1
JPEG, AVIF = saved("JPEG"), saved("AVIF")


CROWDED = [
    png(chunk(b"xxXx") * MANY),
    png(chunk(b"IDAT") * MANY),
    webp(b"ABCD\0\0\0\0" * MANY),
    JPEG[:2] + b"\xff\xe3\x00\x02" * MANY + JPEG[2:],
    JPEG[:2] + b"\xff" * MANY + JPEG[2:],
    JPEG[:2] + b"\xff\x00" * MANY + JPEG[2:],
    JPEG[:2] + b"\xff\xd0" * MANY + JPEG[2:],
    JPEG[:2] + bytes(MANY) + JPEG[2:],
    JPEG[:2] + b"\xff\xe3\x00\x00" * MANY + JPEG[2:],
    AVIF + box(b"free") * MANY,
    AVIF + box(b"moov", box(b"trak") * MANY),
    AVIF + struct.pack(">I4sQ", 1, b"moov", 16 + 8 * MANY) + box(b"trak") * MANY,
    AVIF + struct.pack(">I4s", 0, b"moov") + box(b"trak") * MANY,
]


def test_too_many_parts_are_refused() -> None:
    for number, data in enumerate(CROWDED):
        assert has_too_many_parts(data), number
        for read in (decode_image, read_image_info):
            with pytest.raises(InputImageRefused, match="too many parts") as caught:
                read(data)
            assert caught.value.limit == MAX_PARTS


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_large_images_have_few_parts(file_format: str) -> None:
    noise = Image.effect_noise((1024, 1024), 90).convert("RGB")
    buffer = io.BytesIO()
    options = {"speed": 10} if file_format == "AVIF" else {}
    noise.save(buffer, file_format, xmp=b"x" * 60_000, **options)
    assert not has_too_many_parts(buffer.getvalue())
    assert not has_too_many_parts(buffer.getvalue()[:-100])


def test_truncated_files_have_few_parts() -> None:
    for data in (b"", b"\x89PNG", b"RIFF", b"\xff\xd8\xff", b"\0\0\0\0ftyp", b"x"):
        assert not has_too_many_parts(data), data
