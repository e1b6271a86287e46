"""Running an image's passes on an exact model: starts, masks, second passes, early ends."""

from collections.abc import Callable, Generator

import pytest
import torch
from torch import Tensor

from model.request import MAX_SEED
from model.sampling.noise import initial_noise
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import sigmas_simple
from model.sampling.trajectory import (
    SEED_STRIDE,
    Passes,
    PassInputs,
    Sampled,
    Upscaling,
    advance,
    keep_outside_mask,
    run_passes,
    upscale_latents,
)

SHAPE = (1, 4, 1, 6, 8)
MEAN = 0.4


def denoise(x: Tensor, sigma: float) -> Tensor:
    """The exact answer for data ~ N(0.4, 0.6^2)."""
    a = 1 - sigma
    return MEAN + a * 0.36 / ((a * 0.6) ** 2 + sigma**2) * (x - a * MEAN)


def run(trajectory: Passes, seen: list[tuple[Tensor, float]] | None = None) -> Tensor:
    wanted = advance(trajectory, None)
    while not isinstance(wanted, Sampled):
        if isinstance(wanted, Upscaling):
            wanted = advance(trajectory, wanted.compute())
            continue
        if seen is not None:
            seen.append(wanted)
        wanted = advance(trajectory, denoise(*wanted))
    return wanted.latents


def refuse(latents: Tensor, inputs: PassInputs) -> Tensor:
    raise AssertionError("a single pass upscales nothing")


def trajectory_of(*inputs: PassInputs, sampler: str = "euler", seed: int = 7,
           upscale: Callable[[Tensor, PassInputs], Tensor] = refuse) -> Passes:  # fmt: skip
    return run_passes(inputs, SAMPLERS[sampler], seed=seed, upscale=upscale)


def first_of(trajectory: Passes) -> tuple[Tensor, float]:
    wanted = advance(trajectory, None)
    assert isinstance(wanted, tuple)
    return wanted


def original(value: float = -1.5) -> Tensor:
    return torch.full(SHAPE, value)


def left_half() -> Tensor:
    mask = torch.zeros(1, 1, 1, 6, 8)
    mask[..., :4] = 1
    return mask


def test_the_first_evaluation_is_the_noise() -> None:
    x, sigma = first_of(trajectory_of(PassInputs(SHAPE, sigmas_simple(5))))
    assert sigma == 1
    assert torch.equal(x, initial_noise(7, SHAPE))


def test_a_start_image_is_mixed_with_the_noise_of_its_level() -> None:
    sigmas = sigmas_simple(10)[-6:]
    x, sigma = first_of(trajectory_of(PassInputs(SHAPE, sigmas, original())))
    assert sigma == sigmas[0]
    expected = sigmas[0] * initial_noise(7, SHAPE) + (1 - sigmas[0]) * original()
    assert torch.equal(x, expected)


def test_without_levels_the_original_is_the_result() -> None:
    trajectory = trajectory_of(PassInputs(SHAPE, torch.zeros(1), original()))
    with pytest.raises(StopIteration) as end:
        next(trajectory)
    assert torch.equal(end.value.value, original())


def test_a_pass_without_levels_and_original_is_refused() -> None:
    with pytest.raises(ValueError, match="sigmas has shape"):
        next(trajectory_of(PassInputs(SHAPE, torch.zeros(1))))


def test_every_sampler_repaints_inside_and_keeps_outside() -> None:
    noise, failures = initial_noise(7, SHAPE), list[str]()
    for sampler in SAMPLERS:
        seen = list[tuple[Tensor, float]]()
        inputs = PassInputs(SHAPE, sigmas_simple(12)[-9:], original(), left_half())
        result = run(trajectory_of(inputs, sampler=sampler), seen)
        if not torch.equal(result[..., 4:], original()[..., 4:]):
            failures.append(f"{sampler} changes the outside")
        if not (result - original())[..., :4].abs().min() > 0.1:
            failures.append(f"{sampler} does not repaint the inside")
        for x, sigma in seen:
            kept = sigma * noise + (1 - sigma) * original()
            if x.shape != SHAPE or not torch.equal(x[..., 4:], kept[..., 4:]):
                failures.append(f"{sampler} shows the model another outside at {sigma}")
    assert failures == []


def test_a_white_mask_changes_nothing() -> None:
    sigmas, white = sigmas_simple(8)[-6:], torch.ones(1, 1, 1, 6, 8)
    different = [
        sampler
        for sampler in SAMPLERS
        if not torch.equal(
            run(trajectory_of(PassInputs(SHAPE, sigmas, original()), sampler=sampler)),
            run(trajectory_of(PassInputs(SHAPE, sigmas, original(), white), sampler=sampler)),
        )
    ]
    assert different == []


def test_closing_closes_the_sampler() -> None:
    closed = []

    def inner() -> Generator[tuple[Tensor, float], Tensor, Tensor]:
        try:
            while True:
                yield torch.zeros(SHAPE), 0.5
        finally:
            closed.append(True)

    trajectory = keep_outside_mask(inner(), original(), torch.zeros(SHAPE), left_half())
    next(trajectory)
    trajectory.send(torch.zeros(SHAPE))
    trajectory.close()
    assert closed == [True]


def test_a_second_pass_starts_from_the_upscaled_first_with_new_noise() -> None:
    large = (1, 4, 1, 9, 12)
    ends: list[Tensor] = []

    def upscale(latents: Tensor, inputs: PassInputs) -> Tensor:
        ends.append(latents)
        return upscale_latents(latents, *inputs.shape[-2:])

    sigmas = sigmas_simple(8)[-5:]
    first, second = PassInputs(SHAPE, sigmas_simple(4)), PassInputs(large, sigmas)
    seen: list[tuple[Tensor, float]] = []
    result = run(trajectory_of(first, second, upscale=upscale), seen)
    assert result.shape == large
    assert [x.shape for x, _ in seen] == [SHAPE] * 4 + [large] * 4
    assert torch.equal(ends[0], run(trajectory_of(first)))
    own = initial_noise((7 + SEED_STRIDE) % (MAX_SEED + 1), large)
    expected = sigmas[0] * own + (1 - sigmas[0]) * upscale_latents(ends[0], 9, 12)
    assert torch.equal(seen[4][0], expected)


def test_the_seed_of_the_second_pass_is_far_from_the_first() -> None:
    for seed in (0, SEED_STRIDE - 1, SEED_STRIDE, MAX_SEED):
        second = (seed + SEED_STRIDE) % (MAX_SEED + 1)
        assert 0 <= second <= MAX_SEED, seed
        assert abs(second - seed) > 2**50, seed


def test_upscale_latents_keep_flat_fields() -> None:
    assert torch.allclose(upscale_latents(original(), 9, 12), torch.full((1, 4, 1, 9, 12), -1.5))
