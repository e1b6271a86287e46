"""Noise levels and the weights of the eyes in the training loss."""

import numpy as np
import pytest
import torch

from training.pictures.avatars import sample_avatar
from training.pictures.dataset import SIZES, Size
from training.pictures.drawing import draw
from training.train.dit import EYE_WEIGHT, SHIFT, eye_weights, sample_sigmas


@pytest.mark.parametrize("size", SIZES)
def test_the_weighted_latents_are_where_eye_colours_are_drawn(size: tuple[int, int]) -> None:
    """Two pictures that differ in eye colour alone differ nowhere else."""
    width, height = size
    rng = np.random.default_rng(3)
    avatar = sample_avatar(rng)
    fields = {name: getattr(avatar, name) for name in avatar.__dataclass_fields__}
    fields |= {"quality": "normal", "glasses": False, "eyes": "open"}
    pictures = [
        np.asarray(
            draw(type(avatar)(**{**fields, "eye_color": color}), *size, np.random.default_rng(5))
        ).astype(int)
        for color in ("blue eyes", "red eyes")
    ]
    difference = np.abs(pictures[0] - pictures[1]).sum(-1)
    cells = difference.reshape(height // 8, 8, width // 8, 8).sum((1, 3))
    is_weighted = (eye_weights(height // 8, width // 8) == EYE_WEIGHT).numpy()
    assert cells[is_weighted].sum() > 0.8 * cells.sum() > 0
    assert is_weighted.mean() < 0.1


def test_noise_levels_are_logit_normal_with_shift() -> None:
    torch.manual_seed(0)
    sigmas = sample_sigmas(20_000)
    u = sigmas / (SHIFT - (SHIFT - 1) * sigmas)
    logits = torch.logit(u)
    assert abs(float(logits.mean())) < 0.02
    assert abs(float(logits.std()) - 1) < 0.02


def test_noise_levels_are_shifted_towards_one_and_stay_inside() -> None:
    torch.manual_seed(0)
    sigma = sample_sigmas(20_000)
    assert float(sigma.min()) > 0
    assert float(sigma.max()) < 1
    assert float(sigma.median()) == pytest.approx(0.75, abs=0.01)  # S(0.5) = 3 * 0.5 / 2


@pytest.mark.parametrize("size", SIZES)
def test_eye_weights_lie_symmetrically_on_a_small_part(size: Size) -> None:
    weights = eye_weights(size[1] // 8, size[0] // 8)
    is_eye = weights == EYE_WEIGHT
    assert 0.02 < float(is_eye.float().mean()) < 0.2
    torch.testing.assert_close(weights, weights.flip(1))
