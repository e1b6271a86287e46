"""Thin images cost memory for each row: their header is refused, wherever they are sent."""

import io
import struct
import zlib
from base64 import b64encode
from functools import cache
from pathlib import Path

import httpx2
import pytest
from PIL import AvifImagePlugin, Image, ImageFile, WebPImagePlugin

from api.submit.images.decoding import InputImageRefused, decode_image, read_image_info
from tests.support.api_calls import PROMPT
from worker.images.metadata import UnreadableFile, read_metadata


def encoded(width: int, height: int, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("L" if kind in ("PNG", "JPEG") else "RGB", (width, height)).save(
        file, kind, **options
    )
    return file.getvalue()


def second_header(data: bytes, width: int, height: int) -> bytes:
    """A PNG with another IHDR before its pixels; decoders take the last."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk + data[place:]


@cache
def thin_files() -> dict[str, tuple[bytes, int]]:
    """Files of a few kilobytes, and the limit that each exceeds."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    return {
        "PNG, wide": (encoded(2**24, 1, "PNG"), 16_384),
        "PNG, high": (encoded(1, 2**24, "PNG"), 16_384),
        "PNG, a side too long": (encoded(16_385, 1000, "PNG"), 16_384),
        "PNG, too thin": (encoded(101, 1, "PNG"), 100),
        "PNG with a second header": (second_header(encoded(8, 8, "PNG"), 1, 2**24), 16_384),
        "PNG, turned": (encoded(1, 101, "PNG", exif=exif), 100),
        "JPEG, high": (encoded(1, 65_500, "JPEG"), 16_384),
        "JPEG, too thin": (encoded(16_384, 160, "JPEG"), 100),
        "WebP, wide": (encoded(16_383, 2, "WEBP"), 100),
        "WebP, high": (encoded(2, 16_383, "WEBP", lossless=True), 100),
        "AVIF, high": (encoded(16, 16 * 101, "AVIF"), 100),
    }


THIN = (
    *("PNG, wide", "PNG, high", "PNG, a side too long", "PNG, too thin", "PNG, turned"),
    *("PNG with a second header", "JPEG, high", "JPEG, too thin"),
    *("WebP, wide", "WebP, high", "AVIF, high"),
)


@pytest.fixture
def _no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the image was decoded")

    for kind in (ImageFile.ImageFile, WebPImagePlugin.WebPImageFile, AvifImagePlugin.AvifImageFile):
        monkeypatch.setattr(kind, "load", load)


@pytest.mark.usefixtures("_no_decoding")
@pytest.mark.parametrize("name", THIN)
def test_a_thin_image_is_refused_by_its_header(name: str, tmp_path: Path) -> None:
    data, limit = thin_files()[name]
    assert len(data) < 200_000
    for read in (decode_image, read_image_info):
        with pytest.raises(InputImageRefused, match="no side may") as caught:
            read(data)
        assert caught.value.limit == limit
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=f"no side may .*{limit}"):
        read_metadata(path)


def test_panoramas_and_strips_are_accepted() -> None:
    for size in ((16_384, 1024), (512, 16_384), (100, 1), (1, 1)):
        assert decode_image(encoded(*size, "PNG")).size == size


@pytest.mark.parametrize("name", ["PNG, high", "JPEG, high", "WebP, wide"])
def test_no_endpoint_takes_a_thin_image_or_mask(client: httpx2.Client, name: str) -> None:
    data, limit = thin_files()[name]
    thin = b64encode(data).decode()
    good_file = encoded(128, 128, "PNG")
    good = b64encode(good_file).decode()
    answers = [
        client.post("/generate", json={"prompt": PROMPT, "init_image": thin}),
        client.post("/generate", json={"prompt": PROMPT, "init_image": thin, "mask": thin}),
        client.post("/generate", json={"prompt": PROMPT, "init_image": good, "mask": thin}),
        client.post("/sdapi/v1/img2img", json={"prompt": PROMPT, "init_images": [thin]}),
        client.post(
            "/sdapi/v1/img2img", json={"prompt": PROMPT, "init_images": [good], "mask": thin}
        ),
        client.post("/sdapi/v1/png-info", json={"image": thin}),
        client.post("/v1/images/edits", data={"prompt": PROMPT}, files={"image": data}),
        client.post(
            "/v1/images/edits", data={"prompt": PROMPT}, files={"image": good_file, "mask": data}
        ),
        client.post("/verify", content=data),
    ]
    for number, answer in enumerate(answers):
        assert answer.status_code in (400, 422), (number, answer.text)
        assert "no side may" in answer.text, (number, answer.text)
        assert str(limit) in answer.text
