"""Samplers of the reverse-time SDE on the time lambda: DPM-Solver++ SDE and SEEDS.

`eta` 1 is the SDE, 0 the ODE without noise. With h = lambda_t - lambda_s and q = 1 + eta, all but
dpmpp_sde compute x_t = t/s e^(-eta h) x_s + (1 - t) q integral of e^(q (lambda - lambda_t)) D
d lambda + t sqrt(1 - e^(-2 eta h)) noise. D is a polynomial in lambda through the predictions.
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    below_one,
    check_choice,
    check_options,
    half_log_snr,
    level_at,
    noisy_levels,
)

FIRST_STAGE, SECOND_STAGE = 1 / 3, 2 / 3
"""The inner stages of SEEDS-3 as fractions of a step in lambda."""


def sample_dpmpp_2m_sde(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Trajectory:
    """SDE-DPM-Solver++(2M), arXiv 2211.01095: D is linear through the newest two; order 2.

    `solver_type` is the form of the second-order term: "midpoint" takes half of the first-order
    weight, "heun" integrates the line exactly.
    """
    check_options(eta=eta, s_noise=s_noise)
    check_choice(("midpoint", "heun"), solver_type=solver_type)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    previous: Tensor | None = None
    h_previous = 0.0
    for s, t in pairwise(grid):
        denoised = yield x, s
        step = _SdeStep.between(s, t, eta)
        x = step.carry * x + step.pull * denoised
        if previous is not None:
            second = step.pull / 2 if solver_type == "midpoint" else step.pull_2
            x = x + second * step.h / h_previous * (denoised - previous)
        if eta * s_noise > 0:
            x = x + s_noise * step.std * noise()
        previous, h_previous = denoised, step.h
    return (yield x, grid[-1])


def sample_dpmpp_3m_sde(
    x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Trajectory:
    """SDE-DPM-Solver++(3M), after arXiv 2211.01095: D is a parabola through the newest three.

    One evaluation per step. Overshoots at few steps.
    """
    check_options(eta=eta, s_noise=s_noise)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    history: list[tuple[Tensor, float]] = []  # prediction and the step taken from it, newest first
    for s, t in pairwise(grid):
        denoised = yield x, s
        step = _SdeStep.between(s, t, eta)
        x = step.carry * x + step.pull * denoised
        if history:
            r0 = history[0][1] / step.h
            slope = (denoised - history[0][0]) / r0
            if len(history) > 1:
                r1 = history[1][1] / step.h
                curvature = (slope - (history[0][0] - history[1][0]) / r1) / (r0 + r1)
                slope = slope + r0 * curvature
                x = x - step.pull_3 * curvature
            x = x + step.pull_2 * slope
        if eta * s_noise > 0:
            x = x + s_noise * step.std * noise()
        history = [(denoised, step.h), *history[:1]]
    return (yield x, grid[-1])


def sample_dpmpp_sde(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Trajectory:
    """SDE-DPM-Solver++(2S), arXiv 2211.01095, with separate noise at the middle; weak order 1.

    At the fraction `r` of the step in lambda and at its end, the noiseless solver steps below the
    target level and noise leads back up to it. 2N - 1 evaluations and 2N - 2 draws for N steps.
    `eta` is in [0, 1].
    """
    _check_stage(eta, s_noise, r)
    if eta > 1:
        raise ValueError(f"eta is {eta}, must be at most 1")
    grid = below_one(noisy_levels(sigmas), x.dtype)

    def renoised(x: Tensor, denoised: Tensor, s: float, t: float) -> Tensor:
        kept, added = _ratio_step(s, t, eta)
        x = (1 - t) * (kept * x / (1 - s) + (1 - kept) * denoised)
        return x + (1 - t) * s_noise * added * noise() if added * s_noise > 0 else x

    for s, t in pairwise(grid):
        denoised = yield x, s
        middle = level_at(half_log_snr(s) + r * (half_log_snr(t) - half_log_snr(s)))
        halfway = renoised(x, denoised, s, middle)
        denoised_2 = yield halfway, middle
        mixed = denoised + (denoised_2 - denoised) / (2 * r)
        x = renoised(x, mixed, s, t)
    return (yield x, grid[-1])


def sample_seeds_2(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Trajectory:
    """SEEDS-2, arXiv 2305.14267: two stages, the second at the fraction `r` of the step; order 2.

    The noise at the middle is part of the noise at the end, as on one path of the process. 2N - 1
    evaluations and 2N - 2 draws for N steps.
    """
    _check_stage(eta, s_noise, r)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    for s, t in pairwise(grid):
        denoised = yield x, s
        step = _SdeStep.between(s, t, eta)
        middle = level_at(half_log_snr(s) + r * step.h)
        first = _SdeStep.between(s, middle, eta)
        path = _along(None, first, noise, eta * s_noise > 0, s_noise)
        halfway = _plus(first.carry * x + first.pull * denoised, path)
        denoised_2 = yield halfway, middle
        path = _along(path, _SdeStep.between(middle, t, eta), noise, eta * s_noise > 0, s_noise)
        mixed = denoised + (denoised_2 - denoised) / (2 * r)
        x = _plus(step.carry * x + step.pull * mixed, path)
    return (yield x, grid[-1])


def sample_seeds_3(
    x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Trajectory:
    """SEEDS-3, arXiv 2305.14267: three stages, at 0, 1/3 and 2/3 of the step in lambda.

    3N - 2 evaluations and 3N - 3 draws for N steps.
    """
    check_options(eta=eta, s_noise=s_noise)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    is_noisy = eta * s_noise > 0
    for s, t in pairwise(grid):
        denoised = yield x, s
        step = _SdeStep.between(s, t, eta)
        third = level_at(half_log_snr(s) + FIRST_STAGE * step.h)
        two_thirds = level_at(half_log_snr(s) + SECOND_STAGE * step.h)

        first = _SdeStep.between(s, third, eta)
        path = _along(None, first, noise, is_noisy, s_noise)
        point = _plus(first.carry * x + first.pull * denoised, path)
        change = (yield point, third) - denoised

        second = _SdeStep.between(s, two_thirds, eta)
        path = _along(path, _SdeStep.between(third, two_thirds, eta), noise, is_noisy, s_noise)
        point = second.carry * x + second.pull * denoised
        point = _plus(point + SECOND_STAGE / FIRST_STAGE * second.pull_2 * change, path)
        change = (yield point, two_thirds) - denoised

        path = _along(path, _SdeStep.between(two_thirds, t, eta), noise, is_noisy, s_noise)
        x = _plus(step.carry * x + step.pull * denoised + step.pull_2 / SECOND_STAGE * change, path)
    return (yield x, grid[-1])


class _SdeStep(NamedTuple):
    """The exact step from s to t for a prediction that is a polynomial in lambda.

    `carry` is the weight of x; `pull`, `pull_2` and `-pull_3` are the weights of the prediction's
    value, slope and half its curvature, all per step; `std` is the standard deviation of the
    noise.
    """

    h: float
    carry: float
    pull: float
    pull_2: float
    pull_3: float
    std: float

    @classmethod
    def between(cls, s: float, t: float, eta: float) -> "_SdeStep":
        h = half_log_snr(t) - half_log_snr(s)
        q = h * (1 + eta)
        gain = -math.expm1(-q)
        gain_2 = 1 - gain / q
        return cls(
            h=h,
            carry=(t / s) * math.exp(-eta * h),
            pull=(1 - t) * gain,
            pull_2=(1 - t) * gain_2,
            pull_3=(1 - t) * (gain_2 / q - 0.5),
            std=t * math.sqrt(-math.expm1(-2 * eta * h)),
        )


def _along(
    path: Tensor | None, step: _SdeStep, noise: Noise, is_noisy: bool, s_noise: float
) -> Tensor | None:
    """Carry the noise so far over `step` and add the noise of that step; None without noise."""
    if not is_noisy:
        return None
    fresh = s_noise * step.std * noise()
    return fresh if path is None else step.carry * path + fresh


def _plus(x: Tensor, path: Tensor | None) -> Tensor:
    return x if path is None else x + path


def _ratio_step(s: float, t: float, eta: float) -> tuple[float, float]:
    """An ancestral step in the ratio of noise to signal; with `eta` 1 that of DDPM.

    Returns the share of the old noise that remains below the target, and the noise to add.
    """
    ratio_s, ratio_t = s / (1 - s), t / (1 - t)
    added = min(ratio_t, eta * ratio_t * math.sqrt(1 - (ratio_t / ratio_s) ** 2))
    return math.sqrt(ratio_t**2 - added**2) / ratio_s, added


def _check_stage(eta: float, s_noise: float, r: float) -> None:
    check_options(eta=eta, s_noise=s_noise)
    if not 0 < r < 1:
        raise ValueError(f"r is {r}, must be above 0 and below 1")
