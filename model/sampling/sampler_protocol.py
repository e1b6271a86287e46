"""What all samplers share: their type, and noise levels as float64 numbers.

Knows no sampler, network or schedule.
"""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import TypeAlias

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


def noisy_levels(sigmas: Tensor) -> list[float]:
    """Give the levels above 0 as float64 numbers; refuse what no sampler can walk down."""
    levels: list[float] = sigmas.tolist()
    if sigmas.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}, must be (steps + 1,)")
    if not (levels[0] <= 1 and levels[-1] == 0 and all(s > t for s, t in pairwise(levels))):
        raise ValueError(f"sigmas must fall strictly from at most 1 to 0, got {levels}")
    return levels[:-1]


def below_one(levels: Sequence[float], dtype: torch.dtype) -> list[float]:
    """Move a first level of 1 to NEAR_ONE as `dtype` holds it: what the model is shown, too."""
    near_one = torch.tensor(NEAR_ONE, dtype=dtype).item()
    return [near_one if levels[0] >= 1 else levels[0], *levels[1:]]


def half_log_snr(sigma: float) -> float:
    """Lambda of a noise level."""
    return math.log((1 - sigma) / sigma)


def level_at(half_log_snr: float) -> float:
    """The noise level at a lambda."""
    return 1 / (1 + math.exp(half_log_snr))


def check_options(**options: float) -> None:
    """Refuse a negative or infinite amount."""
    for name, value in options.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, must be finite and at least 0")


def check_between(low: int, high: int, **options: int) -> None:
    """Refuse an order or a number of stages that there is no formula for."""
    for name, value in options.items():
        if value not in range(low, high + 1):
            raise ValueError(f"{name} is {value}, must be {low} to {high}")


def check_choice(choices: Sequence[str], **options: str) -> None:
    """Refuse a name that is none of `choices`."""
    for name, value in options.items():
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, must be one of {', '.join(choices)}")
