"""Samplers that forget every evaluation but those of the step they are in."""

import math
from itertools import pairwise

from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    check_options,
    half_log_snr,
    level_at,
    noisy_levels,
)

NO_MIDDLE = 0.9999
"""The middle of a step from sigma 1, where lambda is infinite."""


def sample_euler(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Integrate dx/dsigma = (x - denoised) / sigma by Euler's method; order 1, no noise."""
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        x = denoised + (t / s) * (x - denoised)
    return (yield x, grid[-1])


def sample_heun(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Integrate by Heun's method (the mean of the slopes at both ends); order 2, no noise.

    Takes 2N - 1 evaluations for N steps: the step into sigma 0 is Euler's.
    """
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        slope = (x - denoised) / s
        euler = x + (t - s) * slope
        denoised = yield euler, t
        x = x + (t - s) * 0.5 * (slope + (euler - denoised) / t)
    return (yield x, grid[-1])


def sample_dpm_2(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Integrate with the slope at the geometric middle of a step; order 2, no noise.

    The midpoint rule of arXiv 2206.00364, algorithm 2, without its churn: 2N - 1 evaluations.
    """
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        middle = math.sqrt(s * t)
        halfway = x + (middle - s) * (x - denoised) / s
        denoised = yield halfway, middle
        x = x + (t - s) * (halfway - denoised) / middle
    return (yield x, grid[-1])


def sample_euler_ancestral(
    x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Trajectory:
    """Step by Euler below the target level, then add noise up to it; weak order 1.

    The rectified-flow form: after stepping down, x is scaled so that the signal keeps its 1 - t.
    `eta` in [0, 1] is the share of stochasticity, `s_noise` scales the added noise.
    """
    _check_ancestral(eta, s_noise)
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        down, rescale, added = _ancestral_step(s, t, eta)
        x = rescale * (denoised + (down / s) * (x - denoised))
        if added * s_noise > 0:
            x = x + s_noise * added * noise()
    return (yield x, grid[-1])


def sample_dpmpp_2s_ancestral(
    x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Trajectory:
    """Step below the target by DPM-Solver++(2S), arXiv 2211.01095, then add noise up to it.

    The rectified-flow form of the renoising, as in Euler ancestral; 2N - 1 evaluations, order
    between 1 and 2. The middle of a step is halfway in lambda.
    """
    _check_ancestral(eta, s_noise)
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        down, rescale, added = _ancestral_step(s, t, eta)
        middle = NO_MIDDLE
        if s < 1:
            middle = level_at((half_log_snr(s) + half_log_snr(down)) / 2)
        halfway = denoised + (middle / s) * (x - denoised)
        denoised = yield halfway, middle
        x = rescale * (denoised + (down / s) * (x - denoised))
        if added * s_noise > 0:
            x = x + s_noise * added * noise()
    return (yield x, grid[-1])


def sample_lcm(x: Tensor, sigmas: Tensor, noise: Noise, *, s_noise: float = 1.0) -> Trajectory:
    """Noise the prediction anew for every level, arXiv 2310.04378 algorithm 3.

    Right for a model distilled to predict the picture from any level in one go; with any other
    the spread of the data is lost, however many steps there are.
    """
    check_options(s_noise=s_noise)
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        x = (1 - t) * denoised
        if s_noise > 0:
            x = x + s_noise * t * noise()
    return (yield x, grid[-1])


def _ancestral_step(s: float, t: float, eta: float) -> tuple[float, float, float]:
    """The level to step down to, what to scale x by there, and the noise that leads back to t."""
    down = t * (1 + (t / s - 1) * eta)
    rescale = (1 - t) / (1 - down)
    return down, rescale, math.sqrt(max(t**2 - (down * rescale) ** 2, 0.0))


def _check_ancestral(eta: float, s_noise: float) -> None:
    check_options(eta=eta, s_noise=s_noise)
    if eta > 1:
        raise ValueError(f"eta is {eta}, must be at most 1")
