"""Fits the linear map from latents to RGB for previews; prints the `[preview]` table of a card.

Uses least squares on drawn avatars, or on a folder of pictures, encoded by the checkpoint's VAE.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.card import load_card
from model.network.load import load_components
from model.network.vae.pixels import encode_pixels
from training.pictures.avatars import sample_avatar
from training.pictures.drawing import draw

SEED = 0x5EE  # used by no training stage
_SIDE = 128
_HELD_OUT = 4  # every fourth picture is held out


class Fit(NamedTuple):
    """The map, and its RMS error on held-out pictures, in levels of 255."""

    factors: NDArray[np.float64]
    bias: NDArray[np.float64]
    rms_error: float


def fit_latent_rgb(samples: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Fit:
    """Fit RGB (h, w, 3) in [-1, 1] from latents (h, w, C), one pair per picture."""
    seen = [pair for i, pair in enumerate(samples) if i % _HELD_OUT]
    unseen = samples[::_HELD_OUT]
    solution = np.linalg.lstsq(*_stacked(seen), rcond=None)[0].astype(np.float64)
    inputs, rgb = _stacked(unseen)
    error = np.clip(inputs @ solution, -1, 1) - rgb
    factors, bias = np.vsplit(solution, [-1])
    return Fit(factors, bias[0], float(np.sqrt((error**2).mean()) * 127.5))


def _stacked(
    samples: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All pixels as rows of C latent values and a 1, and their colours (3)."""
    latents = np.concatenate([z.reshape(-1, z.shape[-1]) for z, _ in samples])
    rgb = np.concatenate([pixels.reshape(-1, 3) for _, pixels in samples])
    return np.column_stack([latents, np.ones(len(latents))]), rgb


def pictures(folder: Path | None, count: int, multiple: int) -> Iterator[Image.Image]:
    """At most `count` RGB pictures whose sides are multiples of `multiple`, drawn or read."""
    if folder is None:
        for i in range(count):
            rng = np.random.default_rng((SEED, i))
            yield draw(sample_avatar(rng), _SIDE, _SIDE, rng)
        return
    files = sorted(p for p in folder.iterdir() if p.suffix in {".png", ".jpg", ".webp", ".avif"})
    for file in files[:count]:
        with Image.open(file) as image:
            width, height = (side // multiple * multiple for side in image.size)
            yield image.convert("RGB").crop((0, 0, width, height))


def _normalised(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32))
    return pixels.movedim(-1, 0)[None, :, None] / 127.5 - 1


def main() -> None:
    """Print the fitted table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", default="kirazuri-tiny")
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--images", type=Path, help="a folder; drawn avatars if not given")
    parser.add_argument("--count", type=int, default=256)
    options = parser.parse_args()
    card = load_card(options.card)
    parts = load_components(
        card,
        options.checkpoint_dir,
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        has_vae_encoder=True,
    )
    mean, std, scale = card.vae.latents_mean, card.vae.latents_std, card.vae.scale_factor
    samples = []
    for image in pictures(options.images, options.count, card.limits.multiple):
        pixels = _normalised(image)
        with torch.inference_mode():
            latents = encode_pixels(parts.vae, pixels, mean=mean, std=std)[0, :, 0]
        small = torch.nn.functional.avg_pool2d(pixels[0, :, 0], scale)
        samples.append(
            (latents.movedim(0, -1).double().numpy(), small.movedim(0, -1).double().numpy())
        )
    result = fit_latent_rgb(samples)
    what = f"pictures in {options.images.name}" if options.images else "drawn avatars"
    print("[preview]")
    print(f'source = "least squares on {len(samples)} {what}"')
    print(f"rms_error = {result.rms_error:.1f}")
    print(f"bias = {result.bias.round(4).tolist()}")
    print(
        "factors = [", *(f"    {row.round(4).tolist()}," for row in result.factors), "]", sep="\n"
    )


if __name__ == "__main__":
    main()
