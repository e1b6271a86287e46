"""What may be known of samplers and schedules without running one: names, cost, options.

Free of torch, for the API and the records of jobs.
"""

from collections.abc import Callable
from dataclasses import dataclass

from model.timesteps import schedule_length

Value = bool | int | float | str
"""Of a sampler's option, as JSON has it."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a sampler; limits are included, `choices` are all there are."""

    default: Value
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str, ...] = ()


def _one_each(steps: int) -> int:
    return steps


def _two_but_last(steps: int) -> int:
    return 2 * steps - 1


def _three_but_last(steps: int) -> int:
    return 3 * steps - 2


EVALUATIONS: dict[str, Callable[[int], int]] = {
    "er_sde": _one_each,
    "sa_solver": _one_each,
    "sa_solver_pece": _two_but_last,
    "euler": _one_each,
    "euler_ancestral": _one_each,
    "heun": _two_but_last,
    "dpm_2": _two_but_last,
    "dpmpp_2m": _one_each,
    "dpmpp_2m_sde": _one_each,
    "dpmpp_3m_sde": _one_each,
    "dpmpp_sde": _two_but_last,
    "dpmpp_2s_ancestral": _two_but_last,
    "res_multistep": _one_each,
    "gradient_estimation": _one_each,
    "deis": _one_each,
    "ipndm": _one_each,
    "uni_pc": _one_each,
    "uni_pc_bh2": _one_each,
    "seeds_2": _two_but_last,
    "seeds_3": _three_but_last,
    "lcm": _one_each,
}
"""Model evaluations for a schedule of N noisy levels; `evaluations` tells them for a request."""

SKIPS_LAST_LEVEL: frozenset[str] = frozenset({"dpm_2", "uni_pc", "uni_pc_bh2"})
"""Samplers that take a schedule of one more step, without its last noisy level.

Made for them elsewhere, and pictures made elsewhere depend on it.
"""


def evaluations(sampler: str, scheduler: str, steps: int) -> int:
    """Model evaluations of one picture; progress and cost count these."""
    skipped = int(sampler in SKIPS_LAST_LEVEL)
    return EVALUATIONS[sampler](schedule_length(scheduler, steps + skipped) - skipped)


STOCHASTIC: frozenset[str] = frozenset(
    {
        "er_sde",
        "sa_solver",
        "sa_solver_pece",
        "euler_ancestral",
        "dpmpp_2m_sde",
        "dpmpp_3m_sde",
        "dpmpp_sde",
        "dpmpp_2s_ancestral",
        "seeds_2",
        "seeds_3",
        "lcm",
    }
)
"""Samplers that add noise on the way."""

DISTILLED_ONLY: frozenset[str] = frozenset({"lcm"})
"""Samplers that are right for distilled checkpoints alone."""

_NOT_FOR_FLOW = (
    "it renoises as if the signal kept its size at every noise level; on a flow model the mean "
    "of the picture shifts, and more steps make it worse"
)
_TWICE_GUIDED = (
    "its rule assumes that the signal keeps its size at every noise level; on a flow model each "
    "step adds sigma times the guidance once more"
)
_STOPS_EARLY = "it chooses its own noise levels and stops above 0, so noise is left in the picture"

REFUSED: dict[str, str] = {
    "ddpm": _NOT_FOR_FLOW,
    "res_multistep_ancestral": _NOT_FOR_FLOW,
    "dpm_fast": _STOPS_EARLY,
    "dpm_adaptive": _STOPS_EARLY,
    "euler_cfg_pp": _TWICE_GUIDED,
    "euler_ancestral_cfg_pp": _TWICE_GUIDED,
    "dpmpp_2m_cfg_pp": _TWICE_GUIDED,
    "dpmpp_2s_ancestral_cfg_pp": _TWICE_GUIDED,
    "res_multistep_cfg_pp": _TWICE_GUIDED,
    "res_multistep_ancestral_cfg_pp": _TWICE_GUIDED,
    "gradient_estimation_cfg_pp": _TWICE_GUIDED,
    "lcm": "it is for distilled checkpoints; with this one the spread of the data would be lost, "
    "however many steps there are",
}
"""Samplers known from elsewhere that are not offered, and why; what a card offers is exempt."""

_MAX_NOISE = 10.0
_S_NOISE = Option(1.0, "Scales the noise that is added; 0 adds none.", 0.0, _MAX_NOISE)
_SHARE = Option(1.0, "Share of stochasticity: 0 is the equation without noise.", 0.0, 1.0)
_ETA = Option(1.0, "1 is the reverse-time SDE, 0 the equation without noise.", 0.0, _MAX_NOISE)
_R = Option(0.5, "Where in a step, in lambda, the second evaluation is.", 0.1, 0.9)
_ANCESTRAL = {"eta": _SHARE, "s_noise": _S_NOISE}
_SDE = {"eta": _ETA, "s_noise": _S_NOISE}
_SA_SOLVER = {
    "predictor_order": Option(3, "Predictions the predictor goes through.", 1, 4),
    "corrector_order": Option(4, "Predictions the corrector goes through.", 1, 4),
    "simple_order_2": Option(False, "The authors' shorter coefficients where the order is 2."),
    "eta": Option(1.0, "Tau in the middle of the schedule, where noise is added.", 0.0, _MAX_NOISE),
    "s_noise": _S_NOISE,
}
_UNI_PC = {"max_order": Option(3, "Predictions a step goes through at most.", 1, 3)}

OPTIONS: dict[str, dict[str, Option]] = {
    "er_sde": {
        "solver_type": Option(
            "er_sde",
            "Noise scale: the paper's, the reverse-time SDE's, or none.",
            choices=("er_sde", "reverse_time_sde", "ode"),
        ),
        "max_stage": Option(3, "Order at most.", 1, 3),
        "eta": Option(1.0, "Strength of the noise scale.", 0.0, _MAX_NOISE),
        "s_noise": _S_NOISE,
    },
    "sa_solver": _SA_SOLVER,
    "sa_solver_pece": _SA_SOLVER,
    "euler": {},
    "euler_ancestral": _ANCESTRAL,
    "heun": {},
    "dpm_2": {},
    "dpmpp_2m": {},
    "dpmpp_2m_sde": {
        **_SDE,
        "solver_type": Option(
            "midpoint", "Form of the second-order term.", choices=("midpoint", "heun")
        ),
    },
    "dpmpp_3m_sde": _SDE,
    "dpmpp_sde": {**_ANCESTRAL, "r": _R},
    "dpmpp_2s_ancestral": _ANCESTRAL,
    "res_multistep": {},
    "gradient_estimation": {
        "gamma": Option(2.0, "How far the slope is drawn on; 1 is Euler.", 0.0, 5.0)
    },
    "deis": {"max_order": Option(3, "Slopes a step goes through at most.", 1, 4)},
    "ipndm": {"max_order": Option(4, "Slopes a step goes through at most.", 1, 4)},
    "uni_pc": _UNI_PC,
    "uni_pc_bh2": _UNI_PC,
    "seeds_2": {**_SDE, "r": _R},
    "seeds_3": _SDE,
    "lcm": {"s_noise": _S_NOISE},
}
"""Options of each sampler by name, as a request may give them."""

DISPLAY_NAMES: dict[str, str] = {
    "er_sde": "ER SDE",
    "sa_solver": "SA Solver",
    "sa_solver_pece": "SA Solver PECE",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "res_multistep": "Res Multistep",
    "gradient_estimation": "Gradient Estimation",
    "deis": "DEIS",
    "ipndm": "IPNDM",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC BH2",
    "seeds_2": "SEEDS 2",
    "seeds_3": "SEEDS 3",
    "lcm": "LCM",
}
"""Names as the A1111 web UI writes them into `parameters`."""

SCHEDULE_DISPLAY_NAMES: dict[str, str] = {
    "simple": "Simple",
    "normal": "Normal",
    "sgm_uniform": "SGM Uniform",
    "beta": "Beta",
    "karras": "Karras",
    "exponential": "Exponential",
    "kl_optimal": "KL Optimal",
    "linear_quadratic": "Linear Quadratic",
    "ddim_uniform": "DDIM",
}
"""The same for schedules."""

UPSCALER_DISPLAY_NAMES: dict[str, str] = {"latent": "Latent (bicubic)", "lanczos": "Lanczos"}
"""The same for what enlarges a picture before its second pass."""
