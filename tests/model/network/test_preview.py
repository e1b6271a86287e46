"""Previews: the linear map, its stated error, and the evaluations that get one."""

from itertools import pairwise

import numpy
import pytest
import torch
from torch import Tensor

from model.card import load_card
from model.network.load import load_components
from model.network.preview import MAX_PREVIEWS, is_preview_due, latents_to_rgb
from model.network.vae.pixels import decode_latents, encode_pixels
from training.pictures.avatars import sample_avatar
from training.pictures.drawing import draw


def test_the_map_is_linear_clamped_and_rounded() -> None:
    latents = torch.zeros(1, 16, 1, 2, 3)
    latents[0, 4, 0, 1, 2] = 1.0
    factors = torch.zeros(16, 3)
    factors[4] = torch.tensor([0.5, 9.0, -9.0])
    rgb = latents_to_rgb(latents, factors=factors.tolist(), bias=[0.0, 0.1, 0.2])
    assert rgb.shape == (2, 3, 3)
    assert rgb.dtype == numpy.uint8
    assert rgb[0, 0].tolist() == [128, 140, 153]
    assert rgb[1, 2].tolist() == [191, 255, 0]


def test_previews_are_few_and_evenly_spread() -> None:
    for total in (1, 2, 3, 5, 10, 11, 29, 30, 100, 199):
        done = [total - left for left in range(total) if is_preview_due(left, total)][::-1]
        assert len(done) <= MAX_PREVIEWS, total
        assert len(done) >= min(MAX_PREVIEWS - 1, total - 2), total
        assert all(1 < count < total for count in done), total
        gaps = {b - a for a, b in pairwise(done)}
        assert max(gaps, default=1) - min(gaps, default=1) <= 1, total


def avatar_latents(count: int) -> tuple[Tensor, Tensor]:
    """Latents and pixels, in [-1, 1], of images that the map was not fitted on."""
    card = load_card("kirazuri-tiny")
    device = torch.device("cpu")
    parts = load_components(card, None, device=device, dtype=torch.float32, has_vae_encoder=True)
    drawn = []
    for seed in range(count):
        rng = numpy.random.default_rng((99, seed))
        drawn.append(numpy.asarray(draw(sample_avatar(rng), 128, 128, rng)))
    pixels = torch.from_numpy(numpy.stack(drawn)).movedim(-1, 1)[:, :, None] / 127.5 - 1
    mean, std = card.vae.latents_mean, card.vae.latents_std
    latents = encode_pixels(parts.vae, pixels, mean=mean, std=std)
    decoded = torch.from_numpy(decode_latents(parts.vae, latents, mean=mean, std=std))
    return latents, decoded.movedim(-1, 1) / 127.5 - 1


@torch.inference_mode()
def test_the_shipped_map_has_the_error_that_its_card_states() -> None:
    table = load_card("kirazuri-tiny").preview
    latents, pixels = avatar_latents(24)
    small = torch.nn.functional.avg_pool2d(pixels, 8).movedim(1, -1) * 127.5 + 127.5
    shown = numpy.stack(
        [latents_to_rgb(z[None], factors=table.factors, bias=table.bias) for z in latents]
    )
    error = float(((torch.from_numpy(shown) - small) ** 2).mean().sqrt())
    assert table.rms_error is not None
    assert error == pytest.approx(table.rms_error, rel=0.15)
    assert error < 0.5 * float(small.std())
