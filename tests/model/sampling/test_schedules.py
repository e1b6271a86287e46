"""Noise schedules against reference values, and their limits."""

import json
from typing import Any

import pytest
import torch

from model.sampling.schedules import (
    SCHEDULES,
    build_sigmas,
    sigmas_beta,
    sigmas_ddim_uniform,
    sigmas_simple,
)
from model.timesteps import schedule_length
from tests.support.paths import DATA

REFERENCE: dict[str, Any] = json.loads((DATA / "samplers.json").read_text())


def test_reference_schedules() -> None:
    wrong = []
    for key, expected in REFERENCE["schedules"].items():
        name, steps = key.split("/")
        if SCHEDULES[name](int(steps)).tolist() != pytest.approx(expected, abs=1e-6):
            wrong.append(key)
    assert wrong == []


@pytest.mark.parametrize("name", SCHEDULES)
def test_falls_strictly_to_zero(name: str) -> None:
    for steps in [*range(1, 201), 1000]:
        sigmas = SCHEDULES[name](steps)
        assert sigmas.dtype == torch.float32
        assert sigmas.isfinite().all(), steps
        assert sigmas[-1] == 0, steps
        assert sigmas[0] == 1 or (name == "ddim_uniform" and sigmas[0] < 1), steps
        assert (sigmas.diff() < 0).all(), steps
        assert len(sigmas) == schedule_length(name, steps) + 1, steps


def test_beta_drops_repeated_levels_from_139_steps_on() -> None:
    lengths = {steps: len(sigmas_beta(steps)) for steps in (138, 139, 200, 1000)}
    assert lengths[138] == 139
    assert all(lengths[steps] < steps + 1 for steps in (139, 200, 1000))


def test_ddim_uniform_has_more_levels_if_its_stride_does_not_divide_the_table() -> None:
    lengths = {steps: schedule_length("ddim_uniform", steps) for steps in (1, 4, 20, 30, 150)}
    assert lengths == {1: 1, 4: 4, 20: 20, 30: 31, 150: 167}
    assert sigmas_ddim_uniform(20)[0].item() == pytest.approx(3 * 0.952 / (1 + 2 * 0.952))


def test_a_single_step_goes_from_one_to_zero() -> None:
    for name in ("karras", "exponential", "kl_optimal", "linear_quadratic"):
        assert SCHEDULES[name](1).tolist() == [1, 0], name


def test_skipping_the_last_level_shortens_a_longer_schedule() -> None:
    longer = sigmas_simple(6).tolist()
    assert build_sigmas("simple", 5, skips_last=True).tolist() == [*longer[:5], 0]
    assert build_sigmas("simple", 5, skips_last=False).tolist() == sigmas_simple(5).tolist()


def test_shift_one_is_a_straight_line() -> None:
    assert sigmas_simple(4, shift=1.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_steps_beyond_the_limits_are_refused() -> None:
    for name in SCHEDULES:
        for steps in (-1, 0, 1001):
            with pytest.raises(ValueError, match=f"steps is {steps}, must be 1 to 1000"):
                SCHEDULES[name](steps)


def test_invalid_shift_and_beta_are_refused() -> None:
    with pytest.raises(ValueError, match="shift is 0, must be above 0"):
        sigmas_simple(4, shift=0)
    with pytest.raises(ValueError, match=r"alpha is 0 and beta 0\.6, both must be positive"):
        sigmas_beta(4, alpha=0)
