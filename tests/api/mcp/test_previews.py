"""Previews: their size in pixels and bytes, their format and their mark."""

import io

import pytest
from PIL import Image

from api.mcp.previews import MAX_PREVIEW_BYTES, make_preview
from worker.images.metadata import TRAINED


def _noise(size: tuple[int, int], kind: str) -> bytes:
    image = Image.merge("RGB", [Image.effect_noise(size, 120) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "avif"])
@pytest.mark.parametrize("size", [(16, 16), (512, 512), (2048, 1024), (64, 2048)])
async def test_previews_are_bounded(kind: str, size: tuple[int, int]) -> None:
    preview = await make_preview(_noise(size, kind), TRAINED)
    assert len(preview) <= MAX_PREVIEW_BYTES
    with Image.open(io.BytesIO(preview)) as image:
        assert image.format == "JPEG"
        assert max(image.size) <= min(512, max(size))
        assert TRAINED.encode() in image.info["xmp"]


async def test_no_mark_if_the_image_has_none() -> None:
    preview = await make_preview(_noise((64, 64), "png"), None)
    with Image.open(io.BytesIO(preview)) as image:
        assert "xmp" not in image.info


async def test_broken_files_are_an_oserror() -> None:
    for file in (b"", b"no picture", _noise((64, 64), "png")[:200]):
        with pytest.raises(OSError, match=r"identify|truncated"):
            await make_preview(file, TRAINED)
