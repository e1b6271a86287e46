"""Describes samplers and schedules without running them: names, cost and options.

Does not import torch, so the API can use it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from model.timesteps import schedule_length

OptionValue = bool | int | float | str
"""The value of a sampler option, as JSON writes it."""


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """An option of a sampler: its default and either inclusive limits or all its choices."""

    default: OptionValue
    description: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplerInfo:
    """A sampler: its names, its code, its cost and its options.

    Its code is the generator `sample_<name>` in this module of `model.sampling`; a variant is that
    of `variant_of` with the arguments `fixed`.
    `display_name` is the name that the A1111 web UI writes into `parameters`.
    `evaluations_per_step` counts model evaluations; the last step always takes one.
    `skips_last_level` means that the sampler takes a schedule of one more step without its last
    noisy level, as other programs do; the same picture needs the same levels.
    `refusal` says why a checkpoint that is not distilled cannot use it; empty if it can.
    """

    name: str
    display_name: str
    module: str
    options: Mapping[str, OptionInfo] = field(default_factory=dict)
    evaluations_per_step: int = 1
    is_stochastic: bool = False
    skips_last_level: bool = False
    refusal: str = ""
    variant_of: str = ""
    fixed: Mapping[str, OptionValue] = field(default_factory=dict)

    def evaluations(self, levels: int) -> int:
        """Model evaluations of one picture for a schedule of `levels` noisy levels."""
        return self.evaluations_per_step * (levels - 1) + 1


@dataclass(frozen=True, slots=True)
class QualityInfo:
    """Which evaluations of a pass the model is asked for: all if `forecast_one_in` is 0.

    Otherwise one in so many is forecast from those before, except for the first and the last.
    """

    forecast_one_in: int = 0

    def asks(self, evaluation: int, evaluations: int) -> bool:
        """Whether the model is asked for this one of so many evaluations, counted from 0."""
        after = evaluation - _ASKED_FIRST
        if not self.forecast_one_in or after < 0 or evaluation == evaluations - 1:
            return True
        return after % self.forecast_one_in != 0

    def asked(self, evaluations: int) -> int:
        """How many of so many evaluations of a pass the model is asked for."""
        return sum(self.asks(index, evaluations) for index in range(evaluations))


_ASKED_FIRST = 3
"""Evaluations before the first forecast: they decide what the picture shows."""

_MAX_NOISE = 10.0
_S_NOISE = OptionInfo(1.0, "Scale of the added noise; 0 adds none.", 0.0, _MAX_NOISE)
_SHARE = OptionInfo(1.0, "Share of added noise: 1 is fully ancestral, 0 adds none.", 0.0, 1.0)
_ETA = OptionInfo(1.0, "Strength of the noise: 1 is the SDE, 0 the ODE.", 0.0, _MAX_NOISE)
_MIDPOINT = OptionInfo(0.5, "Position of the second evaluation in a step, in lambda.", 0.1, 0.9)
_ANCESTRAL = {"eta": _SHARE, "s_noise": _S_NOISE}
_SDE = {"eta": _ETA, "s_noise": _S_NOISE}
_ER_SDE = {
    "solver_type": OptionInfo(
        "er_sde",
        "Noise scale: that of the paper, that of the reverse-time SDE, or none.",
        choices=("er_sde", "reverse_time_sde", "ode"),
    ),
    "max_stage": OptionInfo(3, "Maximum order.", 1, 3),
    "eta": OptionInfo(1.0, "Strength of the noise scale.", 0.0, _MAX_NOISE),
    "s_noise": _S_NOISE,
}
_SA_SOLVER = {
    "predictor_order": OptionInfo(3, "Number of predictions that the predictor uses.", 1, 4),
    "corrector_order": OptionInfo(4, "Number of predictions that the corrector uses.", 1, 4),
    "simple_order_2": OptionInfo(False, "Use the authors' simpler coefficients at order 2."),
    "eta": OptionInfo(
        1.0, "Tau in the middle of the schedule, the part that adds noise.", 0.0, _MAX_NOISE
    ),
    "s_noise": _S_NOISE,
}
_DPMPP_2M_SDE = {
    **_SDE,
    "solver_type": OptionInfo(
        "midpoint", "Form of the second-order term.", choices=("midpoint", "heun")
    ),
}
_GRADIENT_ESTIMATION = {
    "gamma": OptionInfo(2.0, "How far the slope is extrapolated; 1 is Euler.", 0.0, 5.0)
}
_MAX_SLOPES = "Maximum number of slopes in a step."
_UNI_PC = {"max_order": OptionInfo(3, "Maximum number of predictions in a step.", 1, 3)}
_FOR_DISTILLED = (
    "it is for distilled checkpoints; with this one the spread of the data would be lost, "
    "however many steps there are"
)

SAMPLER_CATALOG: Final[Mapping[str, SamplerInfo]] = MappingProxyType(
    {
        info.name: info
        for info in (
            # arXiv 2309.06169
            SamplerInfo("er_sde", "ER SDE", "er_sde", _ER_SDE, is_stochastic=True),
            # arXiv 2309.05019
            SamplerInfo("sa_solver", "SA Solver", "sa_solver", _SA_SOLVER, is_stochastic=True),
            SamplerInfo(
                "sa_solver_pece",
                "SA Solver PECE",
                "sa_solver",
                _SA_SOLVER,
                2,
                is_stochastic=True,
                variant_of="sa_solver",
                fixed={"use_pece": True},
            ),
            SamplerInfo("euler", "Euler", "single_step"),
            SamplerInfo(
                "euler_ancestral", "Euler a", "single_step", _ANCESTRAL, is_stochastic=True
            ),
            SamplerInfo("heun", "Heun", "single_step", evaluations_per_step=2),
            # arXiv 2206.00364, algorithm 2
            SamplerInfo(
                "dpm_2", "DPM2", "single_step", evaluations_per_step=2, skips_last_level=True
            ),
            # arXiv 2211.01095, as all dpmpp_*
            SamplerInfo("dpmpp_2m", "DPM++ 2M", "multistep"),
            SamplerInfo("dpmpp_2m_sde", "DPM++ 2M SDE", "sde", _DPMPP_2M_SDE, is_stochastic=True),
            SamplerInfo("dpmpp_3m_sde", "DPM++ 3M SDE", "sde", _SDE, is_stochastic=True),
            SamplerInfo(
                "dpmpp_sde",
                "DPM++ SDE",
                "sde",
                {**_ANCESTRAL, "r": _MIDPOINT},
                2,
                is_stochastic=True,
            ),
            SamplerInfo(
                "dpmpp_2s_ancestral", "DPM++ 2S a", "single_step", _ANCESTRAL, 2, is_stochastic=True
            ),
            # arXiv 2308.02157
            SamplerInfo("res_multistep", "Res Multistep", "multistep"),
            # arXiv 2306.04848
            SamplerInfo(
                "gradient_estimation", "Gradient Estimation", "multistep", _GRADIENT_ESTIMATION
            ),
            # arXiv 2204.13902
            SamplerInfo(
                "deis", "DEIS", "multistep", {"max_order": OptionInfo(3, _MAX_SLOPES, 1, 4)}
            ),
            # arXiv 2204.13902
            SamplerInfo(
                "ipndm", "IPNDM", "multistep", {"max_order": OptionInfo(4, _MAX_SLOPES, 1, 4)}
            ),
            # arXiv 2302.04867
            SamplerInfo("uni_pc", "UniPC", "uni_pc", _UNI_PC, skips_last_level=True),
            SamplerInfo(
                "uni_pc_bh2",
                "UniPC BH2",
                "uni_pc",
                _UNI_PC,
                skips_last_level=True,
                variant_of="uni_pc",
                fixed={"variant": "bh2"},
            ),
            # arXiv 2305.14267
            SamplerInfo(
                "seeds_2", "SEEDS 2", "sde", {**_SDE, "r": _MIDPOINT}, 2, is_stochastic=True
            ),
            SamplerInfo("seeds_3", "SEEDS 3", "sde", _SDE, 3, is_stochastic=True),
            # arXiv 2310.04378
            SamplerInfo(
                "lcm",
                "LCM",
                "single_step",
                {"s_noise": _S_NOISE},
                is_stochastic=True,
                refusal=_FOR_DISTILLED,
            ),
        )
    }
)
"""Every sampler by name, in the order in which the service lists them.

This is the one place that names a sampler. Its tests, data and documentation say what they lack.
"""

Quality = Literal["exact", "balanced", "fast"]

QUALITY_CATALOG: Final[Mapping[Quality, QualityInfo]] = MappingProxyType(
    {"exact": QualityInfo(), "balanced": QualityInfo(3), "fast": QualityInfo(2)}
)
"""Every quality by name. A card offers some beside `exact`."""

_NOT_FOR_FLOW = (
    "it adds noise as if the signal kept its size at every noise level; on a flow model the mean "
    "of the picture shifts, and more steps make it worse"
)
_TWICE_GUIDED = (
    "its rule assumes that the signal keeps its size at every noise level; on a flow model each "
    "step adds sigma times the guidance once more"
)
_STOPS_EARLY = "it chooses its own noise levels and stops above 0, so noise is left in the picture"

REFUSED_SAMPLERS: Final[Mapping[str, str]] = MappingProxyType(
    {
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
        **{info.name: info.refusal for info in SAMPLER_CATALOG.values() if info.refusal},
    }
)
"""Well-known samplers that are not offered, with the reason. A card may offer those it can use."""

SCHEDULE_DISPLAY_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
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
)
"""Every schedule by name, with its name in the A1111 web UI."""

UPSCALER_DISPLAY_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"latent": "Latent (bicubic)", "lanczos": "Lanczos"}
)
"""Every upscaler of the second pass by name, with its name in the A1111 web UI."""


def evaluations(sampler: str, scheduler: str, steps: int) -> int:
    """Model evaluations of one picture from noise; progress and cost count these."""
    info = SAMPLER_CATALOG[sampler]
    skipped = int(info.skips_last_level)
    return info.evaluations(schedule_length(scheduler, steps + skipped) - skipped)
