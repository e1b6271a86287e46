"""Measures the cost of a C2PA signature: time and bytes by format, at 1024x1024.

Run with `python -m tests.tools.signing`.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
from PIL import Image

from cli.certificates import make_certificate
from model.recipes.recipe import Recipe
from tests.support.paths import ROOT
from tests.support.requests import make_request
from worker.images.c2pa_manifest import C2paReader
from worker.images.c2pa_signer import open_signer
from worker.images.encode import encode_image
from worker.images.metadata import EXTENSIONS, TRAINED
from worker.settings import Settings

ROUNDS = 15
PICTURE = ROOT / "docs" / "images" / "avatars.png"


def median(work: Callable[[], object]) -> float:
    """The median in milliseconds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main() -> None:
    with Image.open(PICTURE) as image:
        pixels = numpy.asarray(image.convert("RGB").resize((1024, 1024), Image.Resampling.LANCZOS))
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_certificate(folder, organisation="Kirazuri Server", days=1)
        settings = Settings(
            _env_file=None,
            c2pa_certificate=folder / "certificate.pem",
            c2pa_key=folder / "key.pem",
        )
        sign, reader = open_signer(settings, service="kirazuri-server"), C2paReader(settings)
    print("| format | bytes | signature adds | encode | sign | check |\n|---|---|---|---|---|---|")
    for image_format in EXTENSIONS:
        request = make_request(image_format=image_format)
        plain = encode_image(pixels, request=request, recipe=Recipe(), seed=1)
        signed = sign(plain, image_format, TRAINED)
        times = [
            median(lambda f=request: encode_image(pixels, request=f, recipe=Recipe(), seed=1)),  # type: ignore[misc]
            median(lambda d=plain, f=image_format: sign(d, f, TRAINED)),  # type: ignore[misc]
            median(lambda d=signed, f=image_format: reader.read(d, f)),  # type: ignore[misc]
        ]
        shown = " | ".join(f"{ms:.1f} ms" for ms in times)
        print(f"| {image_format} | {len(plain)} | {len(signed) - len(plain)} | {shown} |")


if __name__ == "__main__":
    main()
