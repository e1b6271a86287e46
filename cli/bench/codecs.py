"""Measures how long the service's encoder takes for a megapixel in every format, and the size.

Run by `kirazuri bench codecs`. Its own picture is smooth with fine grain, as diffusion models make
them. Times are of the processor, on one core, so that other processes disturb them little.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy
from numpy.typing import NDArray
from PIL import Image

from model.bench.report import add_json_option, print_report
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from model.resolved_request import ResolvedRequest
from worker.images.encode import encode_image

RECIPE = Recipe(card="bench", checkpoint="0" * 64, service="bench")
REFERENCE = "png, Pillow level 4"
_GRAIN = 1.0


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(prog="kirazuri bench codecs", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the square picture, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="a file to encode instead")
    add_json_option(parser)
    options = parser.parse_args()
    if options.picture is None:
        pixels, name = picture(options.side), f"grain {_GRAIN}"
    else:
        with Image.open(options.picture) as image:
            pixels, name = numpy.asarray(image.convert("RGB")), options.picture.name
    height, width, _ = pixels.shape
    rows = measure(pixels, rounds=options.rounds)
    conditions = f"{width}x{height}, {name}, median of {options.rounds}"
    print_report(conditions, rows, command="codecs", json_path=options.json)


def picture(side: int) -> NDArray[numpy.uint8]:
    """Soft shapes of many sizes with fine grain, (side, side, 3)."""
    generator = numpy.random.default_rng(0)
    rows, columns = numpy.mgrid[0:side, 0:side] / side
    colours = numpy.full((side, side, 3), 128.0)
    for _ in range(24):
        x, y, radius = *generator.random(2), 0.02 + 0.3 * generator.random()
        distance = numpy.hypot(columns - x, rows - y)
        inside = 1 / (1 + numpy.exp((distance - radius) * 200))
        colours += inside[..., None] * generator.normal(0, 40, 3)
    colours += generator.normal(0, _GRAIN, colours.shape)
    return colours.round().clip(0, 255).astype(numpy.uint8)


def measure(pixels: NDArray[numpy.uint8], *, rounds: int) -> list[dict[str, Any]]:
    """A row for each format, with the request's default quality, and one to compare with."""
    height, width, _ = pixels.shape
    encoders: dict[str, Callable[[], bytes]] = {}
    for image_format in get_args(ImageFormat):
        request = ResolvedRequest(
            prompt="1girl", negative_prompt="", width=width, height=height, steps=1, cfg_scale=1.0,
            sampler="euler", scheduler="simple", seed=0, num_images=1, image_format=image_format,
            image_quality=90, metadata="full",
        )  # fmt: skip
        encoders[image_format] = partial(
            encode_image, pixels, request=request, recipe=RECIPE, seed=0
        )
    encoders[REFERENCE] = partial(_reference, pixels)
    return [
        {"format": name, **_measure(encode, rounds, megapixels=height * width / 1e6)}
        for name, encode in encoders.items()
    ]


def _measure(encode: Callable[[], bytes], rounds: int, *, megapixels: float) -> dict[str, float]:
    seconds, size = [], 0
    for _ in range(rounds):
        began = time.thread_time()
        size = len(encode())
        seconds.append(time.thread_time() - began)
    return {
        "ms per megapixel": 1000 * statistics.median(seconds) / megapixels,
        "MB per megapixel": size / 1e6 / megapixels,
    }


def _reference(pixels: NDArray[numpy.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, format="png", compress_level=4)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
