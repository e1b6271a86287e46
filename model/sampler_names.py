"""What may be known of samplers and schedules without running one: names, cost, randomness.

Free of torch, for the API and the records of jobs.
"""

from collections.abc import Callable


def _one_each(steps: int) -> int:
    return steps


def _two_but_last(steps: int) -> int:
    return 2 * steps - 1


EVALUATIONS: dict[str, Callable[[int], int]] = {
    "er_sde": _one_each,
    "sa_solver": _one_each,
    "sa_solver_pece": _two_but_last,
    "euler": _one_each,
    "euler_ancestral": _one_each,
    "heun": _two_but_last,
    "dpmpp_2m": _one_each,
    "dpmpp_2m_sde": _one_each,
}
"""Model evaluations for N steps, the length of the schedule less one; progress counts these."""

STOCHASTIC: frozenset[str] = frozenset(
    {"er_sde", "sa_solver", "sa_solver_pece", "euler_ancestral", "dpmpp_2m_sde"}
)
"""Samplers that add noise on the way."""

DISPLAY_NAMES: dict[str, str] = {
    "er_sde": "ER SDE",
    "sa_solver": "SA Solver",
    "sa_solver_pece": "SA Solver PECE",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
}
"""Names as the A1111 web UI writes them into `parameters`."""

SCHEDULE_DISPLAY_NAMES: dict[str, str] = {
    "simple": "Simple",
    "normal": "Normal",
    "sgm_uniform": "SGM Uniform",
    "beta": "Beta",
}
"""The same for schedules."""
