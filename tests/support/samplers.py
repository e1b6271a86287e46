"""Analytic denoisers, reference runs and a driver for samplers."""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.sampler_catalog import SAMPLER_CATALOG
from model.sampling.samplers import SAMPLERS, Evaluation, Trajectory
from model.sampling.schedules import build_sigmas
from tests.support.paths import DATA

REFERENCE: dict[str, Any] = json.loads((DATA / "samplers.json").read_text())
"""Runs of ComfyUI's samplers; the file's `about` says how they were made."""

GAUSS_MEAN, GAUSS_STD = 0.4, 0.6

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
    """Run a sampler to its end; returns its result and the evaluations that it yielded."""
    evaluations: list[Evaluation] = []
    try:
        evaluation = next(trajectory)
        while True:
            evaluations.append(evaluation)
            evaluation = trajectory.send(denoise(*evaluation))
    except StopIteration as stop:
        return stop.value, evaluations


def sigmas_for(name: str, steps: int, scheduler: str) -> Tensor:
    """The sigmas that the service gives to a sampler."""
    return build_sigmas(scheduler, steps, skips_last=SAMPLER_CATALOG[name].skips_last_level)


def gaussian_response(name: str, sigmas: Tensor, **options: Any) -> tuple[float, Tensor]:
    """Solve a Gaussian exactly: every sampler is affine in x and in each noise drawn.

    Returns the offset of the result, and its gain from the initial noise (first) and from every
    noise drawn, all at once: element k of x carries a unit impulse in the k-th of them.
    """
    most_draws = 3 * len(sigmas)
    impulses = torch.eye(most_draws + 2, dtype=torch.float64)
    draws = iter(range(1, most_draws))
    denoise = mixture_denoiser([1.0], [GAUSS_MEAN], [GAUSS_STD])
    out, _ = drive(
        SAMPLERS[name](impulses[0], sigmas, lambda: impulses[next(draws)], **options), denoise
    )
    offset = out[-1]  # its impulse is never drawn
    return float(offset), out[:-1] - offset
