"""Every sampler keeps the contract of `sampler_protocol` and matches its entry in the catalog."""

import inspect
import math
from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from model.sampler_catalog import (
    REFUSED_SAMPLERS,
    SAMPLER_CATALOG,
    SCHEDULE_DISPLAY_NAMES,
    evaluations,
)
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import SCHEDULES, sigmas_simple
from tests.support.refusals import message_of
from tests.support.samplers import (
    GAUSS_MEAN,
    GAUSS_STD,
    REFERENCE,
    drive,
    gaussian_response,
    mixture_denoiser,
    sigmas_for,
)


def sample(name: str, *, x_seed: int, noise_seed: int, problem: str = "mix") -> Tensor:
    generator = torch.Generator().manual_seed(noise_seed)
    x = torch.randn((1, 4, 1, 8, 8), generator=torch.Generator().manual_seed(x_seed))

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=generator)

    denoise = mixture_denoiser(**REFERENCE["problems"][problem])
    return drive(SAMPLERS[name](x, sigmas_simple(20), noise), denoise)[0]


# -- the contract ------------------------------------------------------------------------------


def test_the_same_noise_gives_the_same_result_to_the_bit() -> None:
    failures = []
    for name in SAMPLERS:
        out = sample(name, x_seed=1, noise_seed=2)
        if out.dtype != torch.float32:
            failures.append(f"{name} returns {out.dtype}")
        if not torch.equal(sample(name, x_seed=1, noise_seed=2), out):
            failures.append(f"{name} does not repeat itself")
        is_noisy = SAMPLER_CATALOG[name].is_stochastic
        if not is_noisy and not torch.equal(sample(name, x_seed=1, noise_seed=3), out):
            failures.append(f"{name} depends on noise that it should not draw")
    assert failures == []


def test_er_sde_forgets_the_initial_noise_but_not_its_own() -> None:
    for problem in ("gauss", "mix"):
        out = sample("er_sde", x_seed=1, noise_seed=2, problem=problem)
        other_start = sample("er_sde", x_seed=3, noise_seed=2, problem=problem) - out
        other_noise = sample("er_sde", x_seed=1, noise_seed=4, problem=problem) - out
        # Between two modes the data magnify the rest of the first prediction.
        assert other_start.square().mean().sqrt() < 1e-5
        assert problem == "mix" or other_start.abs().max() < 1e-5
        assert other_noise.square().mean().sqrt() > 0.5


def test_samplers_do_not_write_to_the_callers_tensors() -> None:
    writers = []
    for name in SAMPLERS:
        x, drawn = torch.randn(3, 5), torch.randn(3, 5)
        copies = [(x, x.clone()), (drawn, drawn.clone())]
        trajectory = SAMPLERS[name](x, sigmas_simple(6), partial(as_it_is, drawn))
        drive(trajectory, partial(denoise_and_copy, copies))
        if not all(torch.equal(now, before) for now, before in copies):
            writers.append(name)
    assert writers == []


def as_it_is(drawn: Tensor) -> Tensor:
    return drawn


def denoise_and_copy(copies: list[tuple[Tensor, Tensor]], x: Tensor, sigma: float) -> Tensor:
    denoised = x * (1 - sigma)
    copies.extend([(x, x.clone()), (denoised, denoised.clone())])
    return denoised


def test_a_trajectory_can_be_closed_before_its_end() -> None:
    for name in SAMPLERS:
        trajectory = SAMPLERS[name](torch.ones(2), sigmas_simple(8), lambda: torch.zeros(2))
        x, _ = next(trajectory)
        trajectory.send(x)
        trajectory.close()
        with pytest.raises(StopIteration):
            next(trajectory)


INVALID_SIGMAS: list[tuple[Any, str]] = [
    ([0.0], "sigmas has shape (1,), must be (steps + 1,)"),
    ([[1.0, 0.0]], "sigmas has shape (1, 2), must be (steps + 1,)"),
    ([1.0, 0.5], "sigmas must fall strictly from at most 1 to 0"),
    ([1.0, 0.5, 0.5, 0.0], "sigmas must fall strictly"),
    ([14.6, 1.0, 0.0], "sigmas must fall strictly"),
    ([1.0, float("nan"), 0.0], "sigmas must fall strictly"),
]


def test_invalid_sigmas_are_refused() -> None:
    wrong = []
    for name in SAMPLERS:
        for sigmas, reason in INVALID_SIGMAS:
            trajectory = SAMPLERS[name](torch.ones(2), torch.tensor(sigmas), lambda: torch.zeros(2))
            message = message_of(ValueError, partial(next, trajectory))
            if not message.startswith(reason):
                wrong.append((name, sigmas, message))
    assert wrong == []


def test_uni_pc_refuses_levels_below_where_it_ends() -> None:
    sigmas = torch.tensor([1.0, 0.5, 0.0009, 0.0])
    with pytest.raises(ValueError, match="the last noisy sigma is"):
        next(SAMPLERS["uni_pc"](torch.ones(2), sigmas, lambda: torch.zeros(2)))


# -- the catalog -------------------------------------------------------------------------------


def test_the_tables_name_the_same_samplers_and_schedules() -> None:
    infos = SAMPLER_CATALOG.values()
    assert [*SAMPLER_CATALOG] == [info.name for info in infos]
    assert tuple(SCHEDULES) == tuple(SCHEDULE_DISPLAY_NAMES)
    assert set(SAMPLERS) & set(REFUSED_SAMPLERS) == {"lcm"}
    assert len({info.display_name for info in infos}) == len(infos)
    assert len(set(SCHEDULE_DISPLAY_NAMES.values())) == len(SCHEDULE_DISPLAY_NAMES)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30, 80])
def test_evaluations_and_draws_are_those_of_the_catalog(steps: int) -> None:
    failures = []
    for name in SAMPLERS:
        for scheduler in SCHEDULES:
            problems = broken_promises(name, steps, scheduler)
            failures += [f"{name} on {scheduler}: {problem}" for problem in problems]
    assert failures == []


def broken_promises(name: str, steps: int, scheduler: str) -> list[str]:
    draws: list[Tensor] = []

    def noise() -> Tensor:
        draws.append(torch.zeros(1))
        return draws[-1]

    info = SAMPLER_CATALOG[name]
    sigmas = sigmas_for(name, steps, scheduler)
    out, asked = drive(
        SAMPLERS[name](torch.ones(1), sigmas, noise), lambda x, sigma: x * (1 - sigma)
    )
    needs_draws = info.is_stochastic and steps >= 3 and not name.startswith("sa_solver")
    promises = {
        "the result is finite": bool(out.isfinite().all()),
        "evaluations of the levels": len(asked) == info.evaluations(len(sigmas) - 1),
        "evaluations of the steps": len(asked) == evaluations(name, scheduler, steps),
        "sigmas": all(type(sigma) is float and 0 < sigma <= 1 for _, sigma in asked),
        "most draws": len(draws) <= (len(asked) - 1 if info.is_stochastic else 0),
        "fewest draws": bool(draws) or not needs_draws,
    }
    return [promise for promise, is_kept in promises.items() if not is_kept]


SET_BY_THE_NAME = {"sa_solver": {"use_pece"}, "uni_pc": {"variant"}}


def test_the_options_of_the_catalog_are_the_samplers_parameters() -> None:
    wrong = []
    for name, sampler in SAMPLERS.items():
        is_set = SET_BY_THE_NAME.get(name.removesuffix("_pece").removesuffix("_bh2"), set())
        hints = get_type_hints(sampler.func if isinstance(sampler, partial) else sampler)
        expected = {
            parameter.name: (
                parameter.default,
                type(parameter.default),
                get_args(hints[parameter.name]),
                isinstance(parameter.default, bool | str),
            )
            for parameter in inspect.signature(sampler).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in is_set
        }
        found = {
            option: (info.default, type(info.default), info.choices, info.minimum is None)
            for option, info in SAMPLER_CATALOG[name].options.items()
        }
        if found != expected:
            wrong.append((name, found, expected))
    assert wrong == []


# -- options -----------------------------------------------------------------------------------


def test_both_ends_of_every_option_give_finite_numbers() -> None:
    denoise, failures = mixture_denoiser([1.0], [GAUSS_MEAN], [GAUSS_STD]), []
    for name in SAMPLERS:
        for option, info in SAMPLER_CATALOG[name].options.items():
            for value in info.choices or (info.minimum, info.maximum):
                if value is None:
                    value = not info.default
                for scheduler in SCHEDULES:
                    trajectory = SAMPLERS[name](
                        torch.ones(3),
                        sigmas_for(name, 12, scheduler),
                        lambda: torch.ones(3),
                        **{option: value},
                    )
                    out, _ = drive(trajectory, denoise)
                    if not out.isfinite().all():
                        failures.append((name, option, value, scheduler))
    assert failures == []


def test_no_noise_is_drawn_when_none_is_added() -> None:
    noiseless: list[tuple[str, dict[str, Any]]] = [
        ("er_sde", {"s_noise": 0.0}),
        ("sa_solver", {"eta": 0.0}),
        ("sa_solver_pece", {"s_noise": 0.0}),
        ("euler_ancestral", {"eta": 0.0}),
        ("dpmpp_2m_sde", {"eta": 0.0}),
        ("dpmpp_2m_sde", {"s_noise": 0.0}),
        ("dpmpp_3m_sde", {"eta": 0.0}),
        ("dpmpp_sde", {"eta": 0.0}),
        ("dpmpp_sde", {"s_noise": 0.0}),
        ("dpmpp_2s_ancestral", {"eta": 0.0}),
        ("seeds_2", {"eta": 0.0}),
        ("seeds_3", {"s_noise": 0.0}),
        ("lcm", {"s_noise": 0.0}),
        ("er_sde", {"solver_type": "ode"}),
    ]
    noisy = []
    for name, options in noiseless:
        _, gains = gaussian_response(name, sigmas_simple(12), **options)
        if gains[1:].abs().max() != 0:
            noisy.append((name, options))
    assert noisy == []


INVALID_OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("er_sde", {"max_stage": 4}, "max_stage is 4, must be 1 to 3"),
    ("er_sde", {"solver_type": "sde"}, "solver_type is 'sde', must be one of er_sde, rev"),
    ("er_sde", {"s_noise": -1.0}, "s_noise is -1.0, must be finite and at least 0"),
    ("sa_solver", {"eta": math.nan}, "eta is nan, must be finite and at least 0"),
    ("sa_solver_pece", {"corrector_order": 5}, "corrector_order is 5, must be 1 to 4"),
    ("euler_ancestral", {"eta": 1.5}, "eta is 1.5, must be at most 1"),
    ("dpmpp_2s_ancestral", {"eta": 1.5}, "eta is 1.5, must be at most 1"),
    ("dpmpp_sde", {"eta": 1.5}, "eta is 1.5, must be at most 1"),
    ("dpmpp_sde", {"r": 1.0}, "r is 1.0, must be above 0 and below 1"),
    ("seeds_2", {"r": 0.0}, "r is 0.0, must be above 0 and below 1"),
    ("seeds_3", {"eta": math.inf}, "eta is inf, must be finite and at least 0"),
    ("lcm", {"s_noise": -1.0}, "s_noise is -1.0, must be finite"),
    ("gradient_estimation", {"gamma": -1.0}, "gamma is -1.0, must be finite"),
    ("deis", {"max_order": 5}, "max_order is 5, must be 1 to 4"),
    ("ipndm", {"max_order": 0}, "max_order is 0, must be 1 to 4"),
    ("uni_pc", {"max_order": 4}, "max_order is 4, must be 1 to 3"),
    ("uni_pc", {"variant": "bh3"}, "variant is 'bh3', must be one of bh1, bh2"),
    ("dpmpp_2m_sde", {"solver_type": "rk4"}, "solver_type is 'rk4', must be one of midpoint"),
]


def test_invalid_options_are_refused() -> None:
    wrong = []
    for name, options, reason in INVALID_OPTIONS:
        trajectory = SAMPLERS[name](
            torch.ones(2), sigmas_simple(4), lambda: torch.zeros(2), **options
        )
        message = message_of(ValueError, partial(next, trajectory))
        if not message.startswith(reason):
            wrong.append((name, options, message))
    assert wrong == []
