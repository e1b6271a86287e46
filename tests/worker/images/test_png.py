"""PNG files have the image's pixels, and the same bytes everywhere."""

import hashlib
import io
import zlib
from typing import Any

import numpy
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker.images.png import encode_png


def noise(height: int, width: int, *, levels: tuple[int, ...] = tuple(range(256))) -> Any:
    choose = numpy.random.default_rng(height * width).choice
    return choose(numpy.array(levels, numpy.uint8), (height, width, 3))


def decoded(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return numpy.asarray(image)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (64, 96), (203, 333), (3, 20000)])
@pytest.mark.parametrize("levels", [tuple(range(256)), (0, 255), (0, 1, 127, 128, 254, 255)])
def test_pixels_come_back(size: tuple[int, int], levels: tuple[int, ...]) -> None:
    """Wherever the image ends in a block of rows, and whichever neighbour is the closest."""
    pixels = noise(*size, levels=levels)
    assert numpy.array_equal(decoded(encode_png(pixels, PngInfo())), pixels)


def test_the_filter_fits_the_image() -> None:
    """Also the closest neighbour is found exactly: of the blocks each corner has other ties."""
    columns = numpy.repeat(noise(1, 300), 200, axis=0)
    grain = (128 + numpy.random.default_rng(1).normal(0, 2, (200, 300, 3))).astype(numpy.uint8)
    blocks = numpy.kron(noise(70, 60, levels=(0, 64, 128, 192, 255)), numpy.ones((3, 5, 1), "u1"))
    for number, pixels in ((2, columns), (3, grain), (4, blocks)):
        data = encode_png(pixels, PngInfo())
        assert numpy.array_equal(decoded(data), pixels), number
        packed = data[data.index(b"IDAT") + 4 :]
        rows = numpy.frombuffer(zlib.decompressobj().decompress(packed), "u1")
        assert set(rows.reshape(len(pixels), -1)[:, 0]) == {number}


def test_a_part_of_an_image_has_the_bytes_of_its_copy() -> None:
    whole = noise(80, 90)
    part = whole[10:60:2, 5:77]
    assert encode_png(part, PngInfo()) == encode_png(part.copy(), PngInfo())


def test_texts_stand_between_the_header_and_the_pixels() -> None:
    texts = PngInfo()
    texts.add_text("parameters", "1girl")
    data = encode_png(noise(8, 8), texts)
    places = [data.index(kind) for kind in (b"IHDR", b"tEXtparameters\x001girl", b"IDAT", b"IEND")]
    assert places == sorted(places)


def test_the_bytes_are_those_of_every_zlib() -> None:
    """Found with zlib 1.2.13 and zlib-ng 2.3: what finds only runs has nothing to choose."""
    rows, columns = numpy.mgrid[0:200, 0:300]
    bands = rows // 9 * 20, columns // 3, rows * columns // 400 + rows * columns % 5
    pixels = (numpy.stack(bands, axis=-1) % 256).astype(numpy.uint8)
    digest = hashlib.sha256(encode_png(pixels, PngInfo())).hexdigest()
    assert digest == "eb0e8942a6ea32870624cdcc2ac7fb9f940cd0a3ebff9fc535dbd0967f193f5d"
