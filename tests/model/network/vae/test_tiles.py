"""Tiles have the pixels of the whole decoder, also at their seams."""

import numpy
import pytest
import torch
from torch import Tensor

from model.network.load import Components
from model.network.vae.pixels import decode_latents
from model.network.vae.tiles import decoded_tiles, reach
from tests.support.random_checkpoint import LATENTS_MEAN, LATENTS_STD

SIZE = (33, 50)
"""Not a multiple of any tile, and larger than the margin."""


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn(1, 16, 1, *SIZE, generator=torch.Generator().manual_seed(2))


def joined(components: Components, z: Tensor, size: int) -> Tensor:
    whole = torch.full((1, 3, 1, 8 * SIZE[0], 8 * SIZE[1]), torch.nan)
    for rows, columns, pixels in decoded_tiles(components.vae.decoder, z, size):
        assert whole[..., rows, columns].isnan().all(), "no pixel twice"
        whole[..., rows, columns] = pixels
    return whole


@pytest.mark.parametrize("size", [16, 21, 32, 64])
def test_the_pixels_are_those_of_the_whole_decoder(
    components: Components, latents: Tensor, size: int
) -> None:
    with torch.no_grad():
        expected = components.vae.decoder(latents)
        found = joined(components, latents, size)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_narrower_margin_would_show_seams(
    components: Components, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin = reach(components.vae.decoder)
    assert margin == 9  # two residual blocks a level here; 13 with three, as published
    with torch.no_grad():
        expected = components.vae.decoder(latents)
        monkeypatch.setattr("model.network.vae.tiles.reach", lambda _: 0)
        found = joined(components, latents, 16)
    assert (found - expected).abs().max() > 1e-4 * expected.abs().max()


def test_levels_are_joined_in_place(components: Components, latents: Tensor) -> None:
    whole, tiled = (
        decode_latents(components.vae, latents, mean=LATENTS_MEAN, std=LATENTS_STD, tile=tile)
        for tile in (None, 16)
    )
    assert whole.shape == tiled.shape == (1, 8 * SIZE[0], 8 * SIZE[1], 3)
    assert numpy.abs(whole.astype(int) - tiled).max() <= 1
