"""Samplers against reference runs on analytic denoisers and the exact Gaussian solution."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.samplers import SAMPLERS, Evaluation, Trajectory

REFERENCE: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "samplers.json").read_text()
)
CASES: list[dict[str, Any]] = REFERENCE["cases"]
SHAPE: list[int] = REFERENCE["shape"]

Denoiser = Callable[[Tensor, float], Tensor]


def mixture_denoiser(w: list[float], m: list[float], s: list[float]) -> Denoiser:
    """E[x0 | x] for x = (1 - sigma) x0 + sigma eps, x0 from a Gaussian mixture, elementwise."""
    weight, mean, std = (torch.tensor(values, dtype=torch.float64) for values in (w, m, s))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        a = 1 - sigma
        offset = x.double().unsqueeze(-1) - a * mean
        variance = (a * std) ** 2 + sigma**2
        share = torch.softmax(weight.log() - variance.log() / 2 - offset**2 / (2 * variance), -1)
        return (share * (mean + a * std**2 / variance * offset)).sum(-1).to(x.dtype)

    return denoise


def drive(trajectory: Trajectory, denoise: Denoiser) -> tuple[Tensor, list[Evaluation]]:
    evaluations: list[Evaluation] = []
    try:
        evaluation = next(trajectory)
        while True:
            evaluations.append(evaluation)
            evaluation = trajectory.send(denoise(*evaluation))
    except StopIteration as stop:
        return stop.value, evaluations


class InjectedNoise:
    """Gives the reference's noise tensors in order and counts the draws."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.draws = 0

    def __call__(self) -> Tensor:
        self.draws += 1
        return torch.tensor(REFERENCE["injected_noise"][self.draws - 1], dtype=self.dtype).view(
            SHAPE
        )


def options_of(case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    options = dict(case.get("options", {}))
    if "noise_scaler" in options:
        options["noise_scaler"] = lambda y: y**2
    if case["sampler"] == "dpmpp_2m_sde_heun":
        return "dpmpp_2m_sde", {"solver_type": "heun"}
    return case["sampler"], options


def run_case(case: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, list[Evaluation], int]:
    name, options = options_of(case)
    noise = InjectedNoise(dtype)
    sigmas = torch.tensor(case["sigmas"], dtype=torch.float32)
    x = torch.tensor(REFERENCE["x0_noise"], dtype=dtype).view(SHAPE) * sigmas[0]
    denoise = mixture_denoiser(**REFERENCE["problems"][case["problem"]])
    out, evaluations = drive(SAMPLERS[name](x, sigmas, noise, **options), denoise)
    return out, evaluations, noise.draws


def case_id(case: dict[str, Any]) -> str:
    options = "-".join(case.get("options", {}))
    return f"{case['sampler']}-{case['problem']}-{case['scheduler']}-{case['steps']}{options}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_reference_run(case: dict[str, Any]) -> None:
    out, evaluations, draws = run_case(case, torch.float32)
    expected = torch.tensor(case["out_f64"], dtype=torch.float64).view(SHAPE)
    assert out.dtype == torch.float32
    assert {x.dtype for x, _ in evaluations} == {torch.float32}
    assert (out - expected).abs().max() < 1e-5
    assert [sigma for _, sigma in evaluations] == pytest.approx(case["model_sigmas"], abs=1e-9)
    assert draws == case["n_noise"]


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_reference_run_in_float64_shows_the_coefficients_exact(case: dict[str, Any]) -> None:
    out, _, _ = run_case(case, torch.float64)
    expected = torch.tensor(case["out_f64"], dtype=torch.float64).view(SHAPE)
    assert (out - expected).abs().max() < 1e-6
