"""Computes which entries of the 1000-entry time table each schedule uses, and how many.

Does not import torch, so the API can compute the cost of a request.
"""

import math
from bisect import bisect_right
from functools import cache

TABLE_LENGTH = 1000
"""Number of entries; more steps would repeat an entry."""


def check_steps(steps: int) -> None:
    """Raise ValueError if no schedule can have this number of steps."""
    if not 1 <= steps <= TABLE_LENGTH:
        raise ValueError(f"steps is {steps}, must be 1 to {TABLE_LENGTH}")


def simple_entries(steps: int) -> list[int]:
    """Every (1000 / steps)-th entry, from the last one down."""
    check_steps(steps)
    return [TABLE_LENGTH - 1 - i * TABLE_LENGTH // steps for i in range(steps)]


def ddim_entries(steps: int) -> list[int]:
    """Every (1000 // steps)-th entry, descending to the second one; not always `steps` entries."""
    check_steps(steps)
    return list(range(1, TABLE_LENGTH, TABLE_LENGTH // steps))[::-1]


def beta_entries(steps: int, alpha: float = 0.6, beta: float = 0.6) -> list[int]:
    """Evenly spaced quantiles of Beta(alpha, beta), rounded to entries, without repetitions."""
    check_steps(steps)
    if not (alpha > 0 and beta > 0):
        raise ValueError(f"alpha is {alpha} and beta {beta}, both must be positive")
    bounds = _beta_bounds(alpha, beta)
    shares = (1 - i / steps for i in range(steps))
    return list(dict.fromkeys(bisect_right(bounds, share) for share in shares))


def schedule_length(scheduler: str, steps: int) -> int:
    """Number of noisy levels in a schedule: `steps`, except for `beta` and `ddim_uniform`.

    `beta` drops repeated levels from 139 steps on; `ddim_uniform` rounds its stride down.
    """
    if scheduler == "ddim_uniform":
        return len(ddim_entries(steps))
    return len(beta_entries(steps)) if scheduler == "beta" else steps


@cache
def _beta_bounds(alpha: float, beta: float) -> list[float]:
    """The cumulative distribution function of Beta(alpha, beta) halfway between the entries."""
    return [
        _beta_share((entry + 0.5) / (TABLE_LENGTH - 1), alpha, beta)
        for entry in range(TABLE_LENGTH - 1)
    ]


def _beta_share(x: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function by its power series (DLMF 8.17.8), 0 < x < 1."""
    if x > 0.5:
        return 1 - _beta_share(1 - x, beta, alpha)
    factor = math.exp(math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta))
    term = x**alpha * (1 - x) ** beta * factor / alpha
    total, n = 0.0, 0
    while term > 1e-18:
        total += term
        term *= (alpha + beta + n) / (alpha + 1 + n) * x
        n += 1
    return total
