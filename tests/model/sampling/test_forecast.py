"""Predictions that are forecast, beside a second computation of the same."""

import math
from collections.abc import Callable

import numpy
import pytest
import torch
from torch import Tensor

from model.sampler_catalog import QUALITY_CATALOG, SAMPLER_CATALOG
from model.sampling.forecast import Forecast, with_forecasts
from model.sampling.noise import noise_stream
from model.sampling.samplers import SAMPLERS, Trajectory
from model.sampling.schedules import build_sigmas
from model.workload import sampling_passes
from tests.support.requests import request

SHAPE = (1, 2, 1, 3, 4)
STEPS = 12


def model(x: Tensor, sigma: float) -> Tensor:
    """A prediction that is no straight line in sigma."""
    return torch.tanh(x * (1 - sigma)) + math.sin(5 * sigma)


def started(sampler: str, steps: int = STEPS) -> tuple[Trajectory, int]:
    info = SAMPLER_CATALOG[sampler]
    sigmas = build_sigmas("simple", steps, skips_last=info.skips_last_level)
    noise = noise_stream(3, SHAPE)
    return SAMPLERS[sampler](noise(), sigmas, noise), info.evaluations(len(sigmas) - 1)


def answered(trajectory: Trajectory, answer: Callable[[Tensor, float], Tensor]) -> Tensor:
    x, sigma = next(trajectory)
    while True:
        try:
            x, sigma = trajectory.send(answer(x, sigma))
        except StopIteration as end:
            latents: Tensor = end.value
            return latents


class Forecaster:
    """Answers all evaluations itself: the line is numpy's fit through the last levels."""

    def __init__(self, is_asked: list[bool], levels: int) -> None:
        self.is_asked, self.levels = iter(is_asked), levels
        self.known: dict[float, Tensor] = {}

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if next(self.is_asked):
            self.known[sigma] = model(x, sigma)
            return self.known[sigma]
        levels = list(self.known)[-self.levels :]
        values = torch.stack([self.known[level].flatten() for level in levels]).double()
        fit = numpy.polynomial.polynomial.polyfit(levels, values.numpy(), len(levels) - 1)
        line = numpy.polynomial.polynomial.polyval(sigma, fit)
        return torch.from_numpy(line).float().view(SHAPE)


@pytest.mark.parametrize("sampler", sorted(SAMPLER_CATALOG))
def test_every_sampler_gets_the_line_through_the_last_answers(sampler: str) -> None:
    _, evaluations = started(sampler)
    quality = QUALITY_CATALOG["fast"]
    is_asked = [quality.asks(index, evaluations) for index in range(evaluations)]
    calls: list[float] = []

    def ask(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return model(x, sigma)

    noisy = SAMPLER_CATALOG[sampler].is_stochastic
    forecast = with_forecasts(started(sampler)[0], is_asked, is_stochastic=noisy)
    found = answered(forecast, ask)
    expected = answered(started(sampler)[0], Forecaster(is_asked, 1 if noisy else 2))
    exact = answered(started(sampler)[0], model)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, exact, atol=1e-4, rtol=1e-4)
    assert len(calls) == sum(is_asked) < evaluations


def test_a_level_that_is_evaluated_again_replaces_its_value() -> None:
    line = Forecast(2)
    line.add(0.9, torch.tensor(7.0))
    assert line.at(0.1).item() == 7
    for sigma, value in ((0.8, 1.0), (0.6, 5.0), (0.6, 2.0)):
        line.add(sigma, torch.tensor(value))
    assert line.at(0.4).item() == pytest.approx(3)


def test_the_first_evaluations_and_the_last_one_are_never_forecast() -> None:
    for steps in range(1, 30):
        for sampler in ("euler", "heun", "seeds_3"):
            (only,) = sampling_passes(request(sampler=sampler, steps=steps, quality="fast"))
            assert all((*only.is_asked[:3], only.is_asked[-1])), (sampler, steps)
            runs = "".join("x" if asked else "." for asked in only.is_asked)
            assert ".." not in runs
    assert runs.startswith("xxx.x.x.x")
    assert only.evaluations < 0.56 * len(runs)


def test_a_pass_that_starts_late_begins_anew() -> None:
    (late,) = sampling_passes(
        request(sampler="euler", steps=8, init_image="x", strength=0.4, quality="fast")
    )
    assert late.is_asked == (True, True, True, False, True, False, True, True)


def test_too_few_places_for_a_trajectory_are_an_error() -> None:
    with pytest.raises(ValueError, match="more than 3 evaluations"):
        answered(
            with_forecasts(started("euler")[0], [True, True, False], is_stochastic=False), model
        )
