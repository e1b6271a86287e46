"""The random numbers of one image: the same from its seed alone, whatever else is in the batch.

Drawn in float32 by generators on the CPU, whose numbers do not depend on threads or hardware.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


def initial_noise(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw the standard normal float32 latents an image starts from, (1, 16, 1, h, w) in service.

    Raises ValueError for a seed outside 0..MAX_SEED.
    """
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float32).to(device)


def noise_stream(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Give the function whose k-th call draws a sampler's k-th noise tensor, like `initial_noise`.

    Its generator starts from seed + 1: with the seed itself, the first noise injected would be
    the initial noise again. ComfyUI derives the seed of its CPU noise the same way.
    """
    generator = _generator(seed)
    generator.manual_seed(seed + 1)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(device)

    return draw


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}, must be 0 to {MAX_SEED}")
    return torch.Generator("cpu").manual_seed(seed)
