"""The noise schedules of a rectified-flow model with shifted time, by name.

Each takes the number of steps and returns sigmas that fall to 0, a float32 tensor on the CPU.
Time t has the sigma S(t) = shift t / (1 + (shift - 1) t); the time table has t = 1/1000 ... 1.
All raise ValueError if the steps are not between 1 and 1000.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.timesteps import TABLE_LENGTH, beta_entries, check_steps, ddim_entries, simple_entries

KARRAS_RHO = 7.0
LINEAR_PART = 0.025
"""Distance that `linear_quadratic` falls in the first half of its steps."""


def sigmas_simple(steps: int, *, shift: float = 3.0) -> Tensor:
    """Take every (1000 / steps)-th entry of the time table, from 1 down; shape (steps + 1,)."""
    return _from_table(simple_entries(steps), shift)


def sigmas_normal(steps: int, *, shift: float = 3.0) -> Tensor:
    """Space times evenly from 1 to the table's lowest sigma and shift them; shape (steps + 1,).

    The lowest sigma is already shifted, so the low end is shifted twice: 0.0089 instead of 0.0030
    at shift 3. ComfyUI does the same, and repeating its images requires it.
    """
    check_steps(steps)
    return _falling(_shifted_line(steps, shift))


def sigmas_sgm_uniform(steps: int, *, shift: float = 3.0) -> Tensor:
    """`normal` for one more step, without its last noisy level; shape (steps + 1,)."""
    check_steps(steps)
    return _falling(_shifted_line(steps + 1, shift)[:-1])


def sigmas_beta(steps: int, *, shift: float = 3.0, alpha: float = 0.6, beta: float = 0.6) -> Tensor:
    """Place times at the quantiles of Beta(alpha, beta), arXiv 2407.12173; dense at both ends.

    Quantiles are rounded to the time table and repeated ones dropped: at most steps + 1 sigmas,
    and fewer from 139 steps on with the default parameters.
    """
    return _from_table(beta_entries(steps, alpha, beta), shift)


def sigmas_karras(steps: int, *, shift: float = 3.0) -> Tensor:
    """Space sigma^(1/7) evenly from 1 to the table's lowest, arXiv 2206.00364; (steps + 1,).

    Made for another range of noise: most steps are below sigma 0.3.
    """
    check_steps(steps)
    low = _table(0, shift) ** (1 / KARRAS_RHO)
    return _falling([(1 + a * (low - 1)) ** KARRAS_RHO for a in _ramp(steps)])


def sigmas_exponential(steps: int, *, shift: float = 3.0) -> Tensor:
    """Space ln(sigma) evenly from 1 to the table's lowest; shape (steps + 1,)."""
    check_steps(steps)
    low = math.log(_table(0, shift))
    return _falling([math.exp(a * low) for a in _ramp(steps)])


def sigmas_kl_optimal(steps: int, *, shift: float = 3.0) -> Tensor:
    """Space arctan(sigma) evenly from 1 to the table's lowest, arXiv 2404.14507; (steps + 1,)."""
    check_steps(steps)
    low, high = math.atan(_table(0, shift)), math.atan(1.0)
    return _falling([math.tan(a * low + (1 - a) * high) for a in _ramp(steps)])


def sigmas_linear_quadratic(steps: int, *, shift: float = 3.0) -> Tensor:
    """Fall by LINEAR_PART in the first half of the steps, then by a parabola; (steps + 1,).

    The schedule of Movie Gen, arXiv 2410.13720 section 3.4.2. It does not use the shift.
    """
    check_steps(steps)
    linear = steps // 2
    quadratic = steps - linear
    if not linear:
        return _falling([1.0])
    slope = LINEAR_PART / linear
    rest = linear - LINEAR_PART * steps
    square = rest / (linear * quadratic**2)
    line = slope - 2 * rest / quadratic**2
    start = square * linear**2
    return _falling(
        [1 - i * slope for i in range(linear)]
        + [1 - (square * i**2 + line * i + start) for i in range(linear, steps)]
    )


def sigmas_ddim_uniform(steps: int, *, shift: float = 3.0) -> Tensor:
    """Take every (1000 // steps)-th entry of the time table from the second up, reversed.

    Starts below 1. Has more noisy levels than steps if steps does not divide 1000, for example 31
    for 30 steps.
    """
    return _from_table(ddim_entries(steps), shift)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "simple": sigmas_simple,
    "normal": sigmas_normal,
    "sgm_uniform": sigmas_sgm_uniform,
    "beta": sigmas_beta,
    "karras": sigmas_karras,
    "exponential": sigmas_exponential,
    "kl_optimal": sigmas_kl_optimal,
    "linear_quadratic": sigmas_linear_quadratic,
    "ddim_uniform": sigmas_ddim_uniform,
}


def build_sigmas(scheduler: str, steps: int, *, skips_last: bool) -> Tensor:
    """Return the sigmas of a schedule.

    `skips_last` builds it for one more step and drops its last noisy level.

    Raises:
        ValueError: the steps are not between 1 and 1000.
    """
    if not skips_last:
        return SCHEDULES[scheduler](steps)
    sigmas = SCHEDULES[scheduler](steps + 1)
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def _ramp(steps: int) -> list[float]:
    """Evenly spaced numbers from 0 to 1; only 0 for a single step."""
    return [i / max(steps - 1, 1) for i in range(steps)]


def _shifted(time: float, shift: float) -> float:
    if not shift > 0:
        raise ValueError(f"shift is {shift}, must be above 0")
    return shift * time / (1 + (shift - 1) * time)


def _table(entry: int, shift: float) -> float:
    return _shifted((entry + 1) / TABLE_LENGTH, shift)


def _from_table(entries: list[int], shift: float) -> Tensor:
    return _falling([_table(entry, shift) for entry in entries])


def _shifted_line(points: int, shift: float) -> list[float]:
    line: list[float] = torch.linspace(1, _table(0, shift), points, dtype=torch.float64).tolist()
    return [_shifted(time, shift) for time in line]


def _falling(noisy: list[float]) -> Tensor:
    return torch.tensor([*noisy, 0.0], dtype=torch.float32)
