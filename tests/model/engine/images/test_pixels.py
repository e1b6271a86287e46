"""Image arithmetic: exact blends, the right sizes, the right orientation."""

import numpy
import torch

from model.engine.images.pixels import Pixels, blend, latent_mask, resize, resize_mask, to_tensor


def noise(height: int = 32, width: int = 48, seed: int = 0) -> Pixels:
    random = numpy.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), dtype=numpy.uint8)


def test_levels_become_minus_one_to_one() -> None:
    pixels = numpy.array([[[0, 51, 255]]], numpy.uint8)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 1, 1, 1)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor.flatten(), torch.tensor([-1.0, -0.6, 1.0]))
    assert to_tensor(noise()).shape == (1, 3, 1, 32, 48)
    assert torch.equal(((to_tensor(noise()) + 1) * 127.5).round()[0, :, 0].movedim(0, -1).to(
        torch.uint8
    ), torch.from_numpy(noise()))  # fmt: skip


def test_a_blend_is_exact_at_both_ends_and_linear_between() -> None:
    painted, original = noise(seed=1), noise(seed=2)
    mask = numpy.full((32, 48), 128, numpy.uint8)
    mask[:10], mask[10:20] = 0, 255
    out = blend(painted, original, mask)
    assert out.dtype == numpy.uint8
    assert (out[:10] == original[:10]).all()
    assert (out[10:20] == painted[10:20]).all()
    exact = (painted[20:].astype(float) * 128 + original[20:] * 127.0) / 255
    assert numpy.abs(out[20:] - exact).max() <= 0.5


def test_a_blend_of_an_image_with_itself_is_the_image() -> None:
    image = noise()
    for level in range(0, 256, 17):
        mask = numpy.full((32, 48), level, numpy.uint8)
        assert (blend(image, image, mask) == image).all(), level


def test_a_latents_mask_is_the_maximum_of_its_pixels() -> None:
    mask = numpy.zeros((16, 24), numpy.uint8)
    mask[7, 7] = 255
    mask[8, 23] = 51
    small = latent_mask(mask, 8)
    assert small.shape == (1, 1, 1, 2, 3)
    torch.testing.assert_close(
        small[0, 0, 0], torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.2]])
    )  # fmt: skip


def test_resizing_keeps_images_of_the_right_size_and_flat_fields() -> None:
    picture = noise()
    assert resize(picture, 48, 32) is picture
    flat = numpy.full((32, 48, 3), (10, 200, 90), numpy.uint8)
    large = resize(flat, 96, 80)
    assert large.shape == (80, 96, 3)
    assert (large == (10, 200, 90)).all()


def test_a_resized_mask_keeps_its_black_half() -> None:
    mask = numpy.zeros((32, 48), numpy.uint8)
    mask[:, 24:] = 255
    large = resize_mask(mask, 72, 48)
    assert large.shape == (48, 72)
    assert (large[:, :34] == 0).all()
    assert (large[:, 38:] == 255).all()
    assert resize_mask(mask, 48, 32) is mask
