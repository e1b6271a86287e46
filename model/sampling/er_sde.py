"""The sampler ER-SDE-Solver, arXiv 2309.06169."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from model.sampling.sampler_protocol import (
    Noise,
    Trajectory,
    below_one,
    check_between,
    check_choice,
    check_options,
    noisy_levels,
)

NODES = 200
"""Number of nodes in the integrals of 1 / phi, as in the authors' code."""

NOISE_SCALES: dict[str, Callable[[float, Tensor], Tensor]] = {
    "er_sde": lambda eta, y: y * (torch.exp(y**0.3) + 10) ** eta,
    "reverse_time_sde": lambda eta, y: y ** (1 + eta),
    "ode": lambda eta, y: y,
}
"""phi(y) of the paper by solver type. The paper recommends the first one."""


def sample_er_sde(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    solver_type: Literal["er_sde", "reverse_time_sde", "ode"] = "er_sde",
    max_stage: int = 3,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Trajectory:
    """ER-SDE-Solver-3, arXiv 2309.06169, on the time y = sigma / (1 - sigma); order 3.

    From y_s to y_t with r = phi(y_t) / phi(y_s), for z = x / (1 - sigma):
    z_t = r z_s + (1 - r) D + terms of D' and D'' + sqrt(y_t^2 - (r y_s)^2) noise.

    `solver_type` selects the noise scale phi: y (e^(y^0.3) + 10)^eta, which the paper recommends
    at `eta` 1, y^(1 + eta) of the reverse-time SDE, or y of the ODE. With the recommended one the
    first step replaces x: the image depends on the sampler's noise, not on the initial noise.
    `max_stage` limits the order; the first two steps have orders 1 and 2.
    """
    check_options(eta=eta, s_noise=s_noise)
    check_between(1, 3, max_stage=max_stage)
    check_choice(tuple(NOISE_SCALES), solver_type=solver_type)
    is_noisy = solver_type != "ode" and eta * s_noise > 0
    noise_scaler = partial(NOISE_SCALES[solver_type], eta)
    grid = below_one(noisy_levels(sigmas), x.dtype)
    y = [sigma / (1 - sigma) for sigma in grid]
    phi = noise_scaler(torch.tensor(y, dtype=torch.float64)).tolist()
    previous: Tensor | None = None
    slope_previous: Tensor | None = None
    for i, (s, t) in enumerate(pairwise(grid)):
        denoised = yield x, s
        r = phi[i + 1] / phi[i]
        x = (1 - t) / (1 - s) * r * x + (1 - t) * (1 - r) * denoised
        dy = y[i + 1] - y[i]
        if previous is not None and max_stage >= 2:
            first, second = _integrals(y[i], y[i + 1], noise_scaler)
            slope = (denoised - previous) / (y[i] - y[i - 1])
            x = x + (1 - t) * (dy + first * phi[i + 1]) * slope
            if slope_previous is not None and max_stage >= 3:
                curvature = (slope - slope_previous) / ((y[i] - y[i - 2]) / 2)
                x = x + (1 - t) * (dy**2 / 2 + second * phi[i + 1]) * curvature
            slope_previous = slope
        if is_noisy:
            variance = max(y[i + 1] ** 2 - (y[i] * r) ** 2, 0.0)
            x = x + (1 - t) * s_noise * math.sqrt(variance) * noise()
        previous = denoised
    return (yield x, grid[-1])


def _integrals(
    y_s: float, y_t: float, noise_scaler: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Integrate 1 / phi(y) and (y - y_s) / phi(y) from y_t up to y_s by left Riemann sums."""
    width = (y_s - y_t) / NODES
    nodes = y_t + width * torch.arange(NODES, dtype=torch.float64)
    weights = width / noise_scaler(nodes)
    return float(weights.sum()), float((weights * (nodes - y_s)).sum())
