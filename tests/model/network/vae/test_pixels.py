"""Pixels and latents, compared with the library's frame-by-frame computation."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageRMS_norm
from torch import Tensor, nn

from model.engine.images.pixels import to_tensor
from model.errors import NonFiniteLatents
from model.network.load import Components, load_components
from model.network.vae.modules import ChannelNorm
from model.network.vae.pixels import decode_latents, encode_pixels
from tests.support.random_checkpoint import LATENTS_MEAN, LATENTS_STD, WrittenCheckpoint

MEAN = torch.tensor(LATENTS_MEAN).view(1, -1, 1, 1, 1)
STD = torch.tensor(LATENTS_STD).view(1, -1, 1, 1, 1)


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(3, 16, 1, 6, 4, generator=torch.Generator().manual_seed(3))


def pixels(components: Components, latents: Tensor) -> Any:
    return decode_latents(components.vae, latents, mean=LATENTS_MEAN, std=LATENTS_STD)


def test_the_2d_decoder_equals_the_librarys(
    components: Components, written: WrittenCheckpoint, latents: Tensor
) -> None:
    z = latents * STD + MEAN
    expected = written.made.vae.decode(z, return_dict=False)[0]
    found = components.vae.decoder(components.vae.post_quant_conv(z)).clamp(-1, 1)
    assert (expected - found).abs().max() < 1e-5
    levels = ((expected[:, :, 0] + 1) / 2 * 255).round().movedim(1, -1).to(torch.uint8).numpy()
    mine = pixels(components, latents).astype(int)
    assert mine.shape == (3, 48, 32, 3)
    # A value on the border of two levels may be rounded to either one.
    assert numpy.abs(mine - levels).max() <= 1
    assert (mine != levels).mean() < 1e-3


def test_convolutions_between_frames_are_left_out(
    components: Components, written: WrittenCheckpoint
) -> None:
    theirs = {name for name in written.made.vae.state_dict() if ".time_conv." in name}
    assert len(theirs) > 4
    mine = components.vae.state_dict()
    assert not theirs & set(mine)
    assert all(weight.ndim < 5 for weight in mine.values())


def test_the_norm_of_the_channels_is_the_librarys(components: Components) -> None:
    norms = [m for m in components.vae.modules() if isinstance(m, ChannelNorm)]
    assert len(norms) > 10
    library = QwenImageRMS_norm(norms[0].gamma.shape[0], images=False)
    library.gamma = norms[0].gamma
    x = torch.randn(2, norms[0].gamma.shape[0], 1, 5, 3)
    x[:, :, :, 0] = 0
    x[:, :, :, 1] *= 1e-13
    expected = library(x)
    assert (norms[0](x) - expected).abs().max() < 1e-6


def test_the_workers_vae_has_no_encoder(components: Components) -> None:
    names = set(components.vae.state_dict())
    assert names
    assert not any(name.startswith(("encoder.", "quant_conv.")) for name in names)


def test_encoding_equals_the_librarys_and_normalises_once(
    written: WrittenCheckpoint,
) -> None:
    parts = load_components(
        written.card,
        written.folder,
        device=torch.device("cpu"),
        dtype=torch.float32,
        has_vae_encoder=True,
    )
    picture = torch.rand(2, 3, 1, 48, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mode = written.made.vae.encode(picture).latent_dist.mode()
    found = encode_pixels(parts.vae, picture, mean=LATENTS_MEAN, std=LATENTS_STD)
    assert found.shape == (2, 16, 1, 6, 4)
    assert torch.allclose(found, (mode - MEAN) / STD, atol=1e-5)


def test_encoding_and_decoding_keep_the_shapes(written: WrittenCheckpoint) -> None:
    parts = load_components(
        written.card,
        written.folder,
        device=torch.device("cpu"),
        dtype=torch.float32,
        has_vae_encoder=True,
    )
    norm: Any = {"mean": LATENTS_MEAN, "std": LATENTS_STD}
    for height, width in ((16, 16), (48, 32), (96, 160)):
        picture = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), numpy.uint8)
        latents = encode_pixels(parts.vae, to_tensor(picture), **norm)
        assert latents.shape == (1, 16, 1, height // 8, width // 8)
        assert latents.dtype == torch.float32
        back = decode_latents(parts.vae, latents, **norm)
        assert back.shape == (1, height, width, 3)
        assert back.dtype == numpy.uint8
        again = encode_pixels(parts.vae, to_tensor(back[0]), **norm)
        assert again.shape == latents.shape
        assert torch.isfinite(again).all()


def test_images_of_a_batch_equal_single_images(components: Components, latents: Tensor) -> None:
    together = pixels(components, latents).astype(int)
    for i in range(3):
        assert numpy.abs(together[i] - pixels(components, latents[i : i + 1])[0]).max() <= 1


def test_threads_share_the_decoder(components: Components) -> None:
    generator = torch.Generator().manual_seed(4)
    wanted = [torch.randn(1, 16, 1, 2 + i % 3, 4, generator=generator) for i in range(24)]
    serial = [pixels(components, z) for z in wanted]
    with ThreadPoolExecutor(6) as threads:
        parallel = list(threads.map(lambda z: pixels(components, z), wanted))
    for mine, theirs in zip(parallel, serial, strict=True):
        assert numpy.abs(mine.astype(int) - theirs).max() <= 1


def fixed_output(values: list[float]) -> Any:
    """A VAE that decodes to these values, one pixel each, the same in every channel."""
    image = torch.tensor(values).view(1, 1, 1, 1, -1).expand(1, 3, 1, 1, -1)
    quant = nn.Conv3d(16, 16, 1)
    return SimpleNamespace(post_quant_conv=quant, decoder=lambda _: image)


def test_rounding_is_to_the_nearest_level_with_ties_to_even() -> None:
    level = 2 / 255
    vae = fixed_output(
        [-9.0, -1.0, -1 + 0.49 * level, -1 + 0.51 * level, 0.0, 1 - 0.51 * level, 1.0, 9.0]
    )
    found = decode_latents(vae, torch.zeros(1, 16, 1, 1, 1), mean=[0.0] * 16, std=[1.0] * 16)
    assert found.dtype == numpy.uint8
    assert found[0, 0, :, 0].tolist() == [0, 0, 0, 1, 128, 254, 255, 255]
    assert found.shape == (1, 1, 8, 3)


def test_non_finite_latents_and_pixels_are_refused(components: Components, latents: Tensor) -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        latents[1, 3, 0, 2, 2] = bad
        with pytest.raises(NonFiniteLatents, match=r"latents of shape \(3, 16, 1, 6, 4\)"):
            pixels(components, latents)
        with pytest.raises(NonFiniteLatents, match="pixels"):
            decode_latents(
                fixed_output([0.0, bad]),
                torch.zeros(1, 16, 1, 1, 1),
                mean=[0.0] * 16,
                std=[1.0] * 16,
            )
