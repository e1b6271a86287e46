"""Makes image files to sign, and settings that sign them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy

from model.recipes.recipe import Recipe
from model.request import ImageFormat
from tests.support.requests import make_request
from worker.images.encode import encode_image
from worker.settings import Settings

RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, service="k 0.1")


def signing_settings(folder: Path, **changes: Any) -> Settings:
    """Settings that sign with the files of a folder."""
    files = {"c2pa_certificate": folder / "certificate.pem", "c2pa_key": folder / "key.pem"}
    return Settings(_env_file=None, **files | changes)


@cache
def unsigned_image(image_format: ImageFormat, **changes: Any) -> bytes:
    """A file with metadata, of 64x64 random pixels."""
    pixels = numpy.random.default_rng(3).integers(0, 255, (64, 64, 3), dtype=numpy.uint8)
    request = make_request("a secret prompt", image_format=image_format, **changes)
    return encode_image(pixels, request=request, recipe=RECIPE, seed=5)
