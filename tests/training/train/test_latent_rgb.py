"""The fit of the previews' map."""

import numpy as np
import pytest

from training.train.latent_rgb import fit_latent_rgb


def test_an_exact_map_is_found_again() -> None:
    rng = np.random.default_rng(0)
    factors, bias = rng.normal(size=(16, 3)) / 40, rng.normal(size=3) / 10
    latents = [rng.normal(size=(4, 5, 16)) for _ in range(12)]
    found = fit_latent_rgb([(z, z @ factors + bias) for z in latents])
    assert found.factors == pytest.approx(factors)
    assert found.bias == pytest.approx(bias)
    assert found.rms_error == pytest.approx(0, abs=1e-9)


def test_the_error_is_that_of_unseen_pictures_in_levels_of_255() -> None:
    rng = np.random.default_rng(1)
    latents = [rng.normal(size=(16, 16, 16)) for _ in range(40)]
    found = fit_latent_rgb([(z, rng.choice([-0.1, 0.1], size=(16, 16, 3))) for z in latents])
    assert found.rms_error == pytest.approx(12.75, rel=0.05)
