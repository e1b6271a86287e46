"""Draws the random numbers of one image from its seed alone, independent of the batch.

Generators on the CPU draw float32 numbers that do not depend on threads or hardware.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.request import MAX_SEED


def initial_noise(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw the initial latents of an image: standard normal float32 of `shape`.

    Raises:
        ValueError: the seed is not between 0 and MAX_SEED.
    """
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float32).to(device)


def noise_stream(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Return a function that draws a sampler's next noise tensor with every call.

    Its generator starts from seed + 1, as in ComfyUI for noise on the CPU. With the seed itself,
    the first noise would be the initial noise again.

    Raises:
        ValueError: the seed is not between 0 and MAX_SEED.
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
