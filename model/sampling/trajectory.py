"""One picture's whole way to its latents, as one generator of evaluations.

From noise or from a picture, with what a mask protects held in place, and on through a second
pass at a higher resolution. Knows no batch, guidance or job, and reads no files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.sampling.noise import MAX_SEED, initial_noise, noise_stream
from model.sampling.samplers import Sampler, Trajectory

SEED_STRIDE = 2**52
"""Half of all seeds lie between a picture's seed and its second pass': no neighbour has it."""


@dataclass(frozen=True, slots=True)
class TrajectoryPass:
    """One pass: `sigmas` to walk (a single 0 means: nothing), from noise of `shape`.

    `origin` are the latents (of that shape) of the picture that it starts from. `mask`,
    (1, 1, 1, h, w) in [0, 1], is 1 where they may change; None means everywhere.
    """

    shape: tuple[int, ...]
    sigmas: Tensor
    origin: Tensor | None = None
    mask: Tensor | None = None


def walk(
    legs: Sequence[TrajectoryPass],
    sampler: Sampler,
    *,
    seed: int,
    enlarge: Callable[[Tensor, TrajectoryPass], Tensor],
    device: torch.device | str = "cpu",
) -> Trajectory:
    """Walk all legs; each later one starts from what `enlarge` makes of the latents so far.

    Leg k draws its noise from seed + k * SEED_STRIDE, modulo MAX_SEED + 1.
    """
    first, *later = legs
    latents = yield from _walk_leg(first, first.origin, sampler, seed=seed, device=device)
    for k, leg in enumerate(later, start=1):
        start = enlarge(latents, leg)
        own_seed = (seed + k * SEED_STRIDE) % (MAX_SEED + 1)
        latents = yield from _walk_leg(leg, start, sampler, seed=own_seed, device=device)
    return latents


def _walk_leg(
    leg: TrajectoryPass,
    start: Tensor | None,
    sampler: Sampler,
    *,
    seed: int,
    device: torch.device | str,
) -> Trajectory:
    """Add the noise of the first sigma to `start` (None: nothing there yet) and sample."""
    if len(leg.sigmas) < 2 and start is not None:
        return start
    noise = initial_noise(seed, leg.shape, device=device)
    first = leg.sigmas[0].to(device)
    x = first * noise if start is None else first * noise + (1 - first) * start
    inner = sampler(x, leg.sigmas, noise_stream(seed, leg.shape, device=device))
    if leg.mask is not None and leg.origin is not None:
        inner = held(inner, leg.origin, noise, leg.mask)
    return (yield from inner)


def held(inner: Trajectory, origin: Tensor, noise: Tensor, mask: Tensor) -> Trajectory:
    """Let any sampler repaint only where `mask` is 1.

    Elsewhere the model is shown `origin` with as much of `noise` as the level has, and the sampler
    is told that the model sees `origin` in it.
    """

    def keep(painted: Tensor, kept: Tensor) -> Tensor:
        return mask * painted + (1 - mask) * kept

    try:
        x, sigma = next(inner)
        while True:
            denoised = yield keep(x, sigma * noise + (1 - sigma) * origin), sigma
            try:
                x, sigma = inner.send(keep(denoised, origin))
            except StopIteration as end:
                return keep(end.value, origin)
    finally:
        inner.close()


def enlarged_latents(latents: Tensor, height: int, width: int) -> Tensor:
    """Scale (B, C, 1, h, w) to `height` x `width` latents by bicubic interpolation."""
    flat = torch.nn.functional.interpolate(
        latents[:, :, 0], size=(height, width), mode="bicubic", align_corners=False
    )
    return flat[:, :, None]
