"""The sampler SA-Solver, arXiv 2309.05019."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    below_one,
    check_between,
    check_options,
    half_log_snr,
    noisy_levels,
)

TAU_INTERVAL = (0.9230769230769231, 0.42857142857142855)
"""Noise is added between these two levels, S(0.8) and S(0.2) with shift 3."""


def sample_sa_solver(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    predictor_order: int = 3,
    corrector_order: int = 4,
    simple_order_2: bool = False,
    eta: float = 1.0,
    s_noise: float = 1.0,
    use_pece: bool = False,
) -> Trajectory:
    """SA-Solver, arXiv 2309.05019 algorithm 1: stochastic Adams predictor and corrector.

    Over h = lambda_t - lambda_s, with the polynomial D through earlier predictions:
    x_t = t/s e^(-tau^2 h) x_s + (1 - t) q integral of e^(q (lambda - lambda_t)) D d lambda
    + t sqrt(1 - e^(-2 tau^2 h)) noise, with q = 1 + tau^2. The corrector repeats the step with
    the prediction at its end and the same noise.

    `eta` is tau inside TAU_INTERVAL; outside tau is 0. `simple_order_2` uses the authors' simpler
    coefficients at order 2. `use_pece` evaluates again at every corrected point: 2N - 1
    evaluations instead of N.
    """
    check_options(eta=eta, s_noise=s_noise)
    check_between(1, 4, predictor_order=predictor_order, corrector_order=corrector_order)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    last = len(grid) - 1
    history: list[Tensor] = []  # denoised at the newest levels, newest last
    predicted, tau, injected = x, 0.0, torch.zeros_like(x)
    for i, s in enumerate(grid):
        denoised = yield predicted, s
        history = [*history[-3:], denoised]
        if i > 0 and (use_pece or i < last):
            # Corrector: repeat the last step with the newest prediction and the same noise.
            order = min(corrector_order, len(history), last + 1 - i)
            nodes = grid[i + 1 - order : i + 1]
            adams = _adams_step(x, history[-order:], nodes, grid[i - 1], s, tau, simple_order_2)
            x = adams + injected
            if use_pece:
                history[-1] = yield x, s
        else:
            x = predicted
        if i < last:
            t = grid[i + 1]
            tau = eta if TAU_INTERVAL[0] >= t >= TAU_INTERVAL[1] else 0.0
            order = min(predictor_order, len(history), last - i)
            nodes = grid[i + 1 - order : i + 1]
            predicted = _adams_step(x, history[-order:], nodes, s, t, tau, simple_order_2)
            injected = torch.zeros_like(x)
            if tau * s_noise > 0:
                h = half_log_snr(t) - half_log_snr(s)
                injected = s_noise * t * math.sqrt(-math.expm1(-2 * tau**2 * h)) * noise()
            predicted = predicted + injected
    return history[-1]


def _adams_step(
    x: Tensor,
    history: Sequence[Tensor],
    nodes: Sequence[float],
    s: float,
    t: float,
    tau: float,
    simple_order_2: bool,
) -> Tensor:
    """Step from s to t without noise, by the polynomial through `history` at the levels `nodes`."""
    lambda_t = half_log_snr(t)
    h = lambda_t - half_log_snr(s)
    points = [half_log_snr(node) - lambda_t for node in nodes]
    rate = 1 + tau**2
    if simple_order_2 and len(points) == 2:
        weights = _simple_adams_weights(points, h, rate)
    else:
        weights = _adams_weights(points, h, rate)
    x = (t / s) * math.exp(-(tau**2) * h) * x
    for weight, denoised in zip(weights, history, strict=True):
        x = x + (1 - t) * weight * denoised
    return x


def _adams_weights(points: Sequence[float], h: float, rate: float) -> list[float]:
    """Integrate rate * e^(rate u) times each Lagrange polynomial of `points` over u in [-h, 0].

    u is lambda measured from the end of the interval, which keeps the small Vandermonde system
    well conditioned. In float32 the error would be 1e-3 at 100 steps.
    """
    moments: list[float] = []
    for p in range(len(points)):
        lower = p / rate * moments[-1] if p else 0.0
        moments.append(0.0**p - (-h) ** p * math.exp(-rate * h) - lower)
    u = torch.tensor(points, dtype=torch.float64)
    powers = u ** torch.arange(len(points), dtype=torch.float64).unsqueeze(1)
    weights: list[float] = torch.linalg.solve(powers, u.new_tensor(moments)).tolist()
    return weights


def _simple_adams_weights(points: Sequence[float], h: float, rate: float) -> list[float]:
    """Return the authors' second-order weights, which expand the linear term for small h."""
    total = -math.expm1(-rate * h)
    if points[1] == 0:  # the corrector has a prediction at the end of the interval
        newest = 0.5 * rate * h
        return [total - newest, newest]
    older = 0.5 * rate * h**2 / (points[0] + h)
    return [older, total - older]
