"""Noise schedules of a rectified-flow model with a shifted time: lists of sigmas that fall to 0.

They know no sampler. Each takes the number of steps and gives a float32 tensor on the CPU.
"""

from collections.abc import Callable

import torch
from scipy.special import betaincinv  # type: ignore[import-untyped]
from torch import Tensor

MAX_STEPS = 1000
"""The time table has this many entries: more steps would repeat a sigma."""


def sigmas_simple(steps: int, *, shift: float = 3.0) -> Tensor:
    """Take every (1000 / steps)-th entry of the time table from 1 down; shape (steps + 1,)."""
    _check(steps, shift)
    return _falling([_table(999 - i * MAX_STEPS // steps, shift) for i in range(steps)])


def sigmas_normal(steps: int, *, shift: float = 3.0) -> Tensor:
    """Space times evenly from 1 to the table's lowest sigma and shift them; shape (steps + 1,).

    The lowest sigma is itself a shifted number, so the low end is shifted twice: 0.0089 rather
    than 0.0030 at shift 3. Pictures made elsewhere with this schedule depend on it.
    """
    _check(steps, shift)
    return _falling(_shifted_line(steps, shift))


def sigmas_sgm_uniform(steps: int, *, shift: float = 3.0) -> Tensor:
    """Give `normal` for one more step without its last noisy level; shape (steps + 1,)."""
    _check(steps, shift)
    return _falling(_shifted_line(steps + 1, shift)[:-1])


def sigmas_beta(steps: int, *, shift: float = 3.0, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Place steps at quantiles of Beta(alpha, beta), arXiv 2407.12173; dense at both ends.

    Quantiles are rounded to the time table and repeated ones dropped: at most steps + 1 entries,
    fewer from 139 steps on at the default parameters.
    """
    _check(steps, shift)
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha is {alpha} and beta {beta}, both must be above 0")
    quantiles = (float(betaincinv(alpha, beta, 1 - i / steps)) for i in range(steps))
    entries = dict.fromkeys(round(quantile * (MAX_STEPS - 1)) for quantile in quantiles)
    return _falling([_table(entry, shift) for entry in entries])


SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "simple": sigmas_simple,
    "normal": sigmas_normal,
    "sgm_uniform": sigmas_sgm_uniform,
    "beta": sigmas_beta,
}


def _shifted(time: float, shift: float) -> float:
    return shift * time / (1 + (shift - 1) * time)


def _table(entry: int, shift: float) -> float:
    return _shifted((entry + 1) / MAX_STEPS, shift)


def _shifted_line(points: int, shift: float) -> list[float]:
    line: list[float] = torch.linspace(1, _table(0, shift), points, dtype=torch.float64).tolist()
    return [_shifted(time, shift) for time in line]


def _falling(noisy: list[float]) -> Tensor:
    return torch.tensor([*noisy, 0.0], dtype=torch.float32)


def _check(steps: int, shift: float) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"steps is {steps}, must be 1 to {MAX_STEPS}")
    if not shift > 0:
        raise ValueError(f"shift is {shift}, must be above 0")
