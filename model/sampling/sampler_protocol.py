"""Defines the signature of a sampler, and the checks and conversions that all samplers share."""

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

Evaluation: TypeAlias = tuple[Tensor, float]
"""The input of a model evaluation: `x` and its noise level, a Python float in (0, 1]."""

Trajectory: TypeAlias = Generator[Evaluation, Tensor, Tensor]
"""A generator: yields evaluations, receives D = E[x0 | x, sigma] of x's shape, returns x0."""

Noise: TypeAlias = Callable[[], Tensor]
"""Returns the next standard normal tensor of x's shape, type and device."""

Sampler: TypeAlias = Callable[..., Trajectory]
"""`sampler(x, sigmas, noise, **options)`.

`x` is float32 of any shape, at noise level `sigmas[0]`. `sigmas` is 1-D and falls strictly from at
most 1 to exactly 0. The first `next()` raises ValueError if the sigmas or options are invalid.
"""

NEAR_ONE = 0.9999666644442963
"""Replaces sigma 1, for which lambda is infinite: S(1 - 1e-4) with shift 3."""


def noisy_levels(sigmas: Tensor) -> list[float]:
    """Return the levels above 0 as float64 numbers. ValueError if they do not fall from 1 to 0."""
    levels: list[float] = sigmas.tolist()
    if sigmas.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}, must be (steps + 1,)")
    if not (levels[0] <= 1 and levels[-1] == 0 and all(s > t for s, t in pairwise(levels))):
        raise ValueError(f"sigmas must fall strictly from at most 1 to 0, got {levels}")
    return levels[:-1]


def below_one(levels: Sequence[float], dtype: torch.dtype) -> list[float]:
    """Replace a first level of 1 by NEAR_ONE, rounded to `dtype`. The model sees this level."""
    near_one = torch.tensor(NEAR_ONE, dtype=dtype).item()
    return [near_one if levels[0] >= 1 else levels[0], *levels[1:]]


def half_log_snr(sigma: float) -> float:
    """Lambda of a noise level: ln((1 - sigma) / sigma)."""
    return math.log((1 - sigma) / sigma)


def level_at(half_log_snr: float) -> float:
    """The noise level of a lambda: 1 / (1 + e^lambda)."""
    return 1 / (1 + math.exp(half_log_snr))


def check_options(**options: float) -> None:
    """ValueError if an option is negative, infinite or NaN."""
    for name, value in options.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, must be finite and at least 0")


def check_between(low: int, high: int, **options: int) -> None:
    """ValueError if an option is not a whole number from `low` to `high`."""
    for name, value in options.items():
        if value not in range(low, high + 1):
            raise ValueError(f"{name} is {value}, must be {low} to {high}")


def check_choice(choices: Sequence[str], **options: str) -> None:
    """ValueError if an option is not one of `choices`."""
    for name, value in options.items():
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, must be one of {', '.join(choices)}")
