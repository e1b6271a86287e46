"""Samplers for a rectified-flow model: generators that yield every point where they need it.

They know no network, guidance, seed or device. Notation: a step goes from noise level s to t,
lambda = ln((1 - sigma) / sigma). Coefficients are float64 numbers; tensors keep the type of `x`.
"""

import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Evaluation: TypeAlias = tuple[Tensor, float]
"""A point where the model is needed: `x` and its noise level, a Python float in (0, 1]."""

Trajectory: TypeAlias = Generator[Evaluation, Tensor, Tensor]
"""Yields evaluations, is sent `denoised` = E[x0 | x, sigma] of x's shape, returns the final x."""

Noise: TypeAlias = Callable[[], Tensor]
"""Gives the next standard normal tensor of x's shape, type and device."""

Sampler: TypeAlias = Callable[..., Trajectory]
"""`sampler(x, sigmas, noise, **options)`.

`x` is float32 of any shape, at noise level `sigmas[0]`; `sigmas` is 1-D, strictly decreasing from
at most 1 to exactly 0. Bad sigmas or options raise ValueError at the first `next()`.
"""

NEAR_ONE = 0.9999666644442963
"""Stands in for sigma 1, where lambda is infinite: the shift-3 level at 1e-4 of the way down."""

TAU_INTERVAL = (0.9230769230769231, 0.42857142857142855)
"""SA-Solver adds noise between these levels: 0.2 and 0.8 of the way down at shift 3."""

ER_SDE_NODES = 200


def sample_euler(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Integrate dx/dsigma = (x - denoised) / sigma by Euler's method; order 1, no noise."""
    grid = _noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        x = denoised + (t / s) * (x - denoised)
    return (yield x, grid[-1])


def sample_heun(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """Integrate by Heun's method (the mean of the slopes at both ends); order 2, no noise.

    Takes 2N - 1 evaluations for N steps: the step into sigma 0 is Euler's.
    """
    grid = _noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        slope = (x - denoised) / s
        euler = x + (t - s) * slope
        denoised = yield euler, t
        x = x + (t - s) * 0.5 * (slope + (euler - denoised) / t)
    return (yield x, grid[-1])


def sample_euler_ancestral(
    x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Trajectory:
    """Step by Euler below the target level, then add noise up to it; weak order 1.

    The rectified-flow form: after stepping down, x is scaled so that the signal keeps its 1 - t.
    `eta` in [0, 1] is the share of stochasticity, `s_noise` scales the added noise.
    """
    _check_options(eta=eta, s_noise=s_noise)
    if eta > 1:
        raise ValueError(f"eta is {eta}, must be at most 1")
    grid = _noisy_levels(sigmas)
    for s, t in pairwise(grid):
        denoised = yield x, s
        down = t * (1 + (t / s - 1) * eta)
        rescale = (1 - t) / (1 - down)
        x = rescale * (denoised + (down / s) * (x - denoised))
        if eta * s_noise > 0:
            x = x + s_noise * math.sqrt(t**2 - (down * rescale) ** 2) * noise()
    return (yield x, grid[-1])


def sample_dpmpp_2m(x: Tensor, sigmas: Tensor, noise: Noise) -> Trajectory:
    """DPM-Solver++(2M), arXiv 2211.01095 algorithm 2, on the time -ln(sigma); order 2, no noise."""
    grid = _noisy_levels(sigmas)
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


def sample_dpmpp_2m_sde(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Trajectory:
    """SDE-DPM-Solver++(2M), arXiv 2211.01095, on the time lambda; order 2.

    `eta` 1 is the reverse-time SDE, 0 the ODE; `solver_type` is the form of the second-order term.
    """
    _check_options(eta=eta, s_noise=s_noise)
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type is {solver_type!r}, must be 'midpoint' or 'heun'")
    grid = _below_one(_noisy_levels(sigmas))
    previous: Tensor | None = None
    h_previous = 0.0
    for s, t in pairwise(grid):
        denoised = yield x, s
        h = _half_log_snr(t) - _half_log_snr(s)
        q = h * (1 + eta)
        gain = -math.expm1(-q)
        x = (t / s) * math.exp(-eta * h) * x + (1 - t) * gain * denoised
        if previous is not None:
            second = gain / 2 if solver_type == "midpoint" else 1 - gain / q
            x = x + (1 - t) * second * h / h_previous * (denoised - previous)
        if eta * s_noise > 0:
            x = x + s_noise * t * math.sqrt(-math.expm1(-2 * eta * h)) * noise()
        previous, h_previous = denoised, h
    return (yield x, grid[-1])


def er_sde_noise_scaler(y: Tensor) -> Tensor:
    """Give the paper's recommended noise scale phi(y) = y (exp(y^0.3) + 10)."""
    return y * (torch.exp(y**0.3) + 10)


def sample_er_sde(
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    *,
    max_stage: int = 3,
    s_noise: float = 1.0,
    noise_scaler: Callable[[Tensor], Tensor] = er_sde_noise_scaler,
) -> Trajectory:
    """ER-SDE-Solver-3, arXiv 2309.06169, on the time y = sigma / (1 - sigma).

    `noise_scaler` is phi, applied to float64 tensors: y gives the ODE (use with `s_noise` 0), y^2
    the reverse-time SDE. With the default phi the first step replaces x: the picture comes from
    the sampler's own noise, not from the initial one.
    """
    _check_options(s_noise=s_noise)
    if max_stage not in (1, 2, 3):
        raise ValueError(f"max_stage is {max_stage}, must be 1, 2 or 3")
    grid = _below_one(_noisy_levels(sigmas))
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
            first, second = _er_sde_integrals(y[i], y[i + 1], noise_scaler)
            slope = (denoised - previous) / (y[i] - y[i - 1])
            x = x + (1 - t) * (dy + first * phi[i + 1]) * slope
            if slope_previous is not None and max_stage >= 3:
                curvature = (slope - slope_previous) / ((y[i] - y[i - 2]) / 2)
                x = x + (1 - t) * (dy**2 / 2 + second * phi[i + 1]) * curvature
            slope_previous = slope
        if s_noise > 0:
            variance = max(y[i + 1] ** 2 - (y[i] * r) ** 2, 0.0)
            x = x + (1 - t) * s_noise * math.sqrt(variance) * noise()
        previous = denoised
    return (yield x, grid[-1])


def _er_sde_integrals(
    y_s: float, y_t: float, noise_scaler: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Integrate 1 / phi(y) and (y - y_s) / phi(y) from y_t up to y_s by left Riemann sums."""
    width = (y_s - y_t) / ER_SDE_NODES
    nodes = y_t + width * torch.arange(ER_SDE_NODES, dtype=torch.float64)
    weights = width / noise_scaler(nodes)
    return float(weights.sum()), float((weights * (nodes - y_s)).sum())


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

    `eta` is tau inside TAU_INTERVAL (0 outside); `simple_order_2` takes the authors' shorter
    coefficients wherever the order is 2; `use_pece` evaluates again at every corrected point:
    2N - 1 evaluations instead of N.
    """
    _check_options(eta=eta, s_noise=s_noise)
    if not (1 <= predictor_order <= 4 and 1 <= corrector_order <= 4):
        raise ValueError(
            f"predictor_order is {predictor_order} and corrector_order {corrector_order}, "
            "must be 1 to 4"
        )
    grid = _below_one(_noisy_levels(sigmas))
    last = len(grid) - 1
    history: list[Tensor] = []  # denoised at the newest levels, newest last
    predicted, tau, injected = x, 0.0, torch.zeros_like(x)
    for i, s in enumerate(grid):
        denoised = yield predicted, s
        history = [*history[-3:], denoised]
        if i > 0 and (use_pece or i < last):
            # The interval just crossed, once more: with the newest evaluation, the same noise.
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
                h = _half_log_snr(t) - _half_log_snr(s)
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
    """Cross s -> t without noise, with the polynomial through `history` at the levels `nodes`."""
    lambda_t = _half_log_snr(t)
    h = lambda_t - _half_log_snr(s)
    points = [_half_log_snr(node) - lambda_t for node in nodes]
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

    u is lambda measured from the interval's end, which keeps the small Vandermonde system well
    conditioned; in float32 it would cost 1e-3 at 100 steps.
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
    """Give the authors' second-order weights, which expand the linear term for small h."""
    total = -math.expm1(-rate * h)
    if points[1] == 0:  # the interval's end has been evaluated: the corrector
        newest = 0.5 * rate * h
        return [total - newest, newest]
    older = 0.5 * rate * h**2 / (points[0] + h)
    return [older, total - older]


def _noisy_levels(sigmas: Tensor) -> list[float]:
    """Give the levels above 0 as float64 numbers; refuse what no sampler can walk down."""
    levels: list[float] = sigmas.tolist()
    if sigmas.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}, must be (steps + 1,)")
    if not (levels[0] <= 1 and levels[-1] == 0 and all(s > t for s, t in pairwise(levels))):
        raise ValueError(f"sigmas must fall strictly from at most 1 to 0, got {levels}")
    return levels[:-1]


def _below_one(levels: Sequence[float]) -> list[float]:
    """Move a first level of 1 to NEAR_ONE as a float32 number: what the model is shown, too."""
    near_one = torch.tensor(NEAR_ONE, dtype=torch.float32).item()
    return [near_one if levels[0] >= 1 else levels[0], *levels[1:]]


def _half_log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def _check_options(**options: float) -> None:
    for name, value in options.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, must be finite and at least 0")


sample_sa_solver_pece: Sampler = partial(sample_sa_solver, use_pece=True)

SAMPLERS: dict[str, Sampler] = {
    "er_sde": sample_er_sde,
    "sa_solver": sample_sa_solver,
    "sa_solver_pece": sample_sa_solver_pece,
    "euler": sample_euler,
    "euler_ancestral": sample_euler_ancestral,
    "heun": sample_heun,
    "dpmpp_2m": sample_dpmpp_2m,
    "dpmpp_2m_sde": sample_dpmpp_2m_sde,
}
