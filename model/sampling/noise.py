"""Draws the random numbers of one image from its seed alone, independent of the batch.

Generators on the CPU draw float32 numbers that do not depend on threads or hardware. A thread draws
them ahead, so that the device does not wait for the CPU between two steps.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from model.request import MAX_SEED

_DRAWING = ThreadPoolExecutor(1, thread_name_prefix="noise")
"""One thread: it makes the draws of a generator in their order."""


def initial_noise(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw the initial latents of an image: standard normal float32 of `shape`.

    Raises:
        ValueError: the seed is not between 0 and MAX_SEED.
    """
    return initial_noise_ahead(seed, shape, device=device)()


def initial_noise_ahead(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Begin to draw the initial latents, and return a function that waits for them.

    Raises:
        ValueError: the seed is not between 0 and MAX_SEED.
    """
    drawn = _draw_ahead(_generator(seed), shape, device)
    return lambda: drawn.result().to(device, non_blocking=True)


def noise_stream(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu"
) -> Callable[[], Tensor]:
    """Return a function that draws a sampler's next noise tensor with every call.

    Its generator starts from seed + 1, as in ComfyUI for noise on the CPU. With the seed itself,
    the first noise would be the initial noise again. The next tensor is drawn ahead.

    Raises:
        ValueError: the seed is not between 0 and MAX_SEED.
    """
    generator = _generator(seed)
    generator.manual_seed(seed + 1)
    drawn = _draw_ahead(generator, shape, device)

    def draw() -> Tensor:
        nonlocal drawn
        noise, drawn = drawn.result(), _draw_ahead(generator, shape, device)
        return noise.to(device, non_blocking=True)

    return draw


def _draw_ahead(
    generator: torch.Generator, shape: tuple[int, ...], device: torch.device | str
) -> "Future[Tensor]":
    return _DRAWING.submit(_draw, generator, shape, torch.device(device))


def _draw(generator: torch.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    # A copy from other memory would first wait for all that the GPU has to compute.
    return noise.pin_memory() if device.type == "cuda" else noise


def _generator(seed: int) -> torch.Generator:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}, must be 0 to {MAX_SEED}")
    return torch.Generator("cpu").manual_seed(seed)
