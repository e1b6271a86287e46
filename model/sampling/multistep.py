"""Multistep samplers without noise: DPM-Solver++(2M), RES, gradient estimation, iPNDM, DEIS.

They reuse the predictions of earlier steps and evaluate the model once per step.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    check_between,
    check_options,
    noisy_levels,
)

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the slopes by order, newest first, for steps of equal length."""

DEIS_NODES = 10_000
DEIS_TIMES = (1e-3, 1.0)
DEIS_LEVELS = (0.002, 80.0)
"""The variance-preserving process in whose time DEIS interpolates: noise over signal at the two
ends of its time, from arXiv 2206.00364, table 1."""


def sample_dpmpp_2m(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """DPM-Solver++(2M), arXiv 2211.01095 algorithm 2, on the time -ln(sigma); order 2.

    x_t = t/s x_s + (1 - t/s) (D + h / (2 h_prev) (D - D_prev)), with h = ln(s / t).
    """
    grid = noisy_levels(sigmas)
    previous: Tensor | None = None
    h_previous = 0.0
    for s, t in pairwise(grid):
        denoised = yield x, s
        h = math.log(s / t)
        extrapolated = denoised
        if previous is not None:
            extrapolated = denoised + h / (2 * h_previous) * (denoised - previous)
        x = (t / s) * x + (1 - t / s) * extrapolated
        previous, h_previous = denoised, h
    return (yield x, grid[-1])


def sample_res_multistep(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """RES, arXiv 2308.02157 algorithm 2, in its multistep form on the time -ln(sigma); order 2.

    x_t = t/s x_s + h (phi_1 D + phi_2 h / h_prev (D - D_prev)), with h = ln(s / t),
    phi_1 = (1 - e^-h) / h and phi_2 = (1 - phi_1) / h: the exact integral of a prediction that is
    linear through the newest two.
    """
    grid = noisy_levels(sigmas)
    previous: Tensor | None = None
    h_previous = 0.0
    for s, t in pairwise(grid):
        denoised = yield x, s
        h = math.log(s / t)
        phi_1 = -math.expm1(-h) / h
        x = (t / s) * x + h * phi_1 * denoised
        if previous is not None:
            phi_2 = (1 - phi_1) / h
            x = x + h * phi_2 * h / h_previous * (denoised - previous)
        previous, h_previous = denoised, h
    return (yield x, grid[-1])


def sample_gradient_estimation(
    x: Tensor, sigmas: Tensor, noise: Noise, *, gamma: float = 2.0
) -> Trajectory:
    """Gradient estimation, arXiv 2306.04848 section 4: Euler with an extrapolated slope; order 1.

    x_t = x_s + (t - s) (d_prev + gamma (d - d_prev)), with the slope d = (x - D) / s. `gamma` 1 is
    Euler; the authors use 2.
    """
    check_options(gamma=gamma)
    grid = noisy_levels(sigmas)
    previous: Tensor | None = None
    for s, t in pairwise(grid):
        denoised = yield x, s
        slope = (x - denoised) / s
        estimate = slope if previous is None else previous + gamma * (slope - previous)
        x = x + (t - s) * estimate
        previous = slope
    return (yield x, grid[-1])


def sample_ipndm(x: Tensor, sigmas: Tensor, noise: Noise, *, max_order: int = 4) -> Trajectory:
    """iPNDM, arXiv 2202.09778 and 2204.13902: Adams-Bashforth steps on the slopes (x - D) / s.

    Uses the weights of steps of equal length for every schedule, and at most `max_order` slopes.
    The first steps have lower order.
    """
    check_between(1, 4, max_order=max_order)
    grid = noisy_levels(sigmas)
    slopes: list[Tensor] = []  # newest first
    for s, t in pairwise(grid):
        denoised = yield x, s
        slopes = [(x - denoised) / s, *slopes[: max_order - 1]]
        for weight, slope in zip(ADAMS_BASHFORTH[len(slopes) - 1], slopes, strict=True):
            x = x + (t - s) * weight * slope
    return (yield x, grid[-1])


def sample_deis(x: Tensor, sigmas: Tensor, noise: Noise, *, max_order: int = 3) -> Trajectory:
    """tAB-DEIS, arXiv 2204.13902: integrates a polynomial through the slopes (x - D) / s.

    The polynomial is in the time of the variance-preserving process given by DEIS_LEVELS, and
    goes through at most `max_order` slopes.
    """
    check_between(1, 4, max_order=max_order)
    grid = noisy_levels(sigmas)
    slopes: list[Tensor] = []  # newest first
    for i, (s, t) in enumerate(pairwise(grid)):
        denoised = yield x, s
        slopes = [(x - denoised) / s, *slopes[: max_order - 1]]
        nodes = [grid[i - k] for k in range(len(slopes))]
        for weight, slope in zip(_deis_weights(nodes, t), slopes, strict=True):
            x = x + weight * slope
    return (yield x, grid[-1])


def _deis_weights(nodes: Sequence[float], t: float) -> list[float]:
    """Integrate each Lagrange polynomial of `nodes` over the noise level, from nodes[0] to t.

    With one node this is an Euler step. As in the authors' code, the integral is a mean over
    evenly spaced times; it differs from the exact one by up to 1e-5 of the data at 8 steps.
    """
    if len(nodes) == 1:
        return [t - nodes[0]]
    curve, line = _deis_process()
    times = torch.tensor([_deis_time(sigma, curve, line) for sigma in nodes], dtype=torch.float64)
    end = _deis_time(t, curve, line)
    tau = torch.linspace(float(times[0]), end, DEIS_NODES, dtype=torch.float64)
    growth = torch.exp(curve / 2 * tau**2 + line * tau)
    speed = (curve * tau + line) * growth / (2 * torch.sqrt(growth - 1))
    weights = []
    for j, time in enumerate(times):
        others = torch.cat([times[:j], times[j + 1 :]]).unsqueeze(1)
        lagrange = ((tau - others) / (time - others)).prod(0)
        weights.append(float((speed * lagrange).mean() * (end - times[0])))
    return weights


def _deis_process() -> tuple[float, float]:
    """`curve` and `line` of sigma(time)^2 = exp(curve / 2 time^2 + line time) - 1."""
    (early, late), (low, high) = DEIS_TIMES, DEIS_LEVELS
    log_low, log_high = math.log1p(low**2), math.log1p(high**2)
    curve = 2 * (log_low / early - log_high / late) / (early - late)
    return curve, log_high - curve / 2


def _deis_time(sigma: float, curve: float, line: float) -> float:
    """The time at which the process has this ratio of noise to signal."""
    return (math.sqrt(line**2 + 2 * curve * math.log1p(sigma**2)) - line) / curve
