"""Single-step samplers: Euler, Heun, DPM-2, Euler ancestral, DPM-Solver++(2S) ancestral, LCM.

They use no predictions of earlier steps.
"""

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
"""The middle of a step from sigma 1, for which lambda is infinite."""


def sample_euler(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Euler's method on dx/dsigma = (x - D) / sigma: x_t = D + t/s (x_s - D); order 1."""
    grid = noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        x = denoised + (t / s) * (x - denoised)
    return (yield x, grid[-1])


def sample_heun(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Heun's method: the mean of the slopes (x - D) / sigma at both ends of a step; order 2.

    2N - 1 evaluations for N steps: the step to sigma 0 is an Euler step.
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
    """DPM-2: the midpoint rule with the slope at sqrt(s t), arXiv 2206.00364 algorithm 2; order 2.

    Without the churn of the paper. 2N - 1 evaluations for N steps.
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
    """Euler ancestral: an Euler step below the target level, then noise up to it; weak order 1.

    With down = t (1 + (t/s - 1) eta) and r = (1 - t) / (1 - down):
    x_t = r (D + down/s (x_s - D)) + sqrt(t^2 - (r down)^2) noise. The factor r is the
    rectified-flow form: it keeps the signal at 1 - t. `eta` in [0, 1] is the share of noise,
    `s_noise` scales the noise.
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
    """DPM-Solver++(2S), arXiv 2211.01095, to below the target level, then noise up to it.

    Adds noise as `sample_euler_ancestral`. The middle of a step is halfway in lambda. 2N - 1
    evaluations for N steps; order between 1 and 2.
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
    """LCM, arXiv 2310.04378 algorithm 3: x_t = (1 - t) D + t noise.

    For models distilled to predict the image from any level in one step. With any other model the
    spread of the data is lost, at any number of steps.
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
    """The level to step down to, the factor of x there, and the noise that leads back to t."""
    down = t * (1 + (t / s - 1) * eta)
    rescale = (1 - t) / (1 - down)
    return down, rescale, math.sqrt(max(t**2 - (down * rescale) ** 2, 0.0))


def _check_ancestral(eta: float, s_noise: float) -> None:
    check_options(eta=eta, s_noise=s_noise)
    if eta > 1:
        raise ValueError(f"eta is {eta}, must be at most 1")
