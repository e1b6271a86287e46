"""Runs all passes of one image as a single generator of model evaluations.

A pass starts from noise or from an image. A mask holds parts of the image in place. A second pass
continues at a higher resolution.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from model.request import MAX_SEED
from model.sampling.forecast import with_forecasts
from model.sampling.noise import initial_noise_ahead, noise_stream
from model.sampling.samplers import Evaluation, Sampler, Trajectory

SEED_STRIDE = 2**52
"""Distance between the seeds of two passes: half of all seeds, so that no neighbour shares one."""


@dataclass(frozen=True, slots=True)
class PassInputs:
    """The tensors of one sampling pass.

    `shape` is the shape of the latents. `sigmas` are the noise levels down to 0; a single 0 means
    that the pass samples nothing. `original` are the latents of the image that the pass starts
    from. `mask`, (1, 1, 1, h, w) in [0, 1], is 1 where they may change; None means everywhere.
    `is_asked` says of each evaluation whether the model is asked; the others are forecast. Empty
    means all. `is_stochastic` says that the sampler adds noise.
    """

    shape: tuple[int, ...]
    sigmas: Tensor
    original: Tensor | None = None
    mask: Tensor | None = None
    is_asked: tuple[bool, ...] = ()
    is_stochastic: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Upscaling:
    """What an image waits for between two passes: `latents` at the next pass's size.

    `compute()` returns them. It may take as long as several evaluations.
    """

    latents: Tensor
    compute: Callable[[], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """The end: an image's final latents."""

    latents: Tensor


Passes: TypeAlias = Generator[Evaluation | Upscaling, Tensor, Tensor]
"""A `Trajectory` over all passes: it also yields upscalings, and receives their results."""


def advance(passes: Passes, answer: Tensor | None) -> Evaluation | Upscaling | Sampled:
    """Give an image what it waited for; returns what it waits for next. None starts it."""
    try:
        return passes.send(answer)  # type: ignore[arg-type]
    except StopIteration as end:
        return Sampled(end.value)


def run_passes(
    inputs: Sequence[PassInputs],
    sampler: Sampler,
    *,
    seed: int,
    upscale: Callable[[Tensor, PassInputs], Tensor],
    device: torch.device | str = "cpu",
) -> Passes:
    """Run all passes. Each later one starts from the latents so far, resized by `upscale`.

    Pass k draws its noise from seed + k * SEED_STRIDE, modulo MAX_SEED + 1. Drawing the initial
    noise begins with this call, before the trajectory starts.
    """
    seeds = [(seed + k * SEED_STRIDE) % (MAX_SEED + 1) for k in range(len(inputs))]
    initial = [
        initial_noise_ahead(pass_seed, one.shape, device=device)
        for one, pass_seed in zip(inputs, seeds, strict=True)
    ]

    def run_pass(k: int, start: Tensor | None) -> Trajectory:
        draw = partial(noise_stream, seeds[k], inputs[k].shape, device=device)
        return _run_pass(inputs[k], start, sampler, initial[k], draw)

    def run() -> Passes:
        latents = yield from run_pass(0, inputs[0].original)
        for k in range(1, len(inputs)):
            start = yield Upscaling(latents, partial(upscale, latents, inputs[k]))
            latents = yield from run_pass(k, start)
        return latents

    return run()


def _run_pass(
    inputs: PassInputs,
    start: Tensor | None,
    sampler: Sampler,
    initial_noise: Callable[[], Tensor],
    start_stream: Callable[[], Callable[[], Tensor]],
) -> Trajectory:
    """Add the noise of the first sigma to `start` (None: start from pure noise) and sample."""
    if len(inputs.sigmas) < 2 and start is not None:
        return start
    noise = initial_noise()
    first = inputs.sigmas[0].to(noise.device)
    x = first * noise if start is None else first * noise + (1 - first) * start
    trajectory = sampler(x, inputs.sigmas, start_stream())
    if inputs.mask is not None and inputs.original is not None:
        trajectory = keep_outside_mask(trajectory, inputs.original, noise, inputs.mask)
    if not all(inputs.is_asked):
        trajectory = with_forecasts(trajectory, inputs.is_asked, is_stochastic=inputs.is_stochastic)
    return (yield from trajectory)


def keep_outside_mask(
    trajectory: Trajectory, original: Tensor, noise: Tensor, mask: Tensor
) -> Trajectory:
    """Let a sampler repaint only where `mask` is 1.

    Elsewhere the model sees (1 - sigma) * original + sigma * noise, and the sampler receives
    `original` as the model's prediction.
    """

    def combine(painted: Tensor, kept: Tensor) -> Tensor:
        return mask * painted + (1 - mask) * kept

    try:
        x, sigma = next(trajectory)
        while True:
            denoised = yield combine(x, sigma * noise + (1 - sigma) * original), sigma
            try:
                x, sigma = trajectory.send(combine(denoised, original))
            except StopIteration as end:
                return combine(end.value, original)
    finally:
        trajectory.close()


def upscale_latents(latents: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, 1, h, w) to `height` x `width` latents by bicubic interpolation."""
    flat = torch.nn.functional.interpolate(
        latents[:, :, 0], size=(height, width), mode="bicubic", align_corners=False
    )
    return flat[:, :, None]
