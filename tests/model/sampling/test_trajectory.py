"""The way of one picture, on an exact model: starts, masks, second passes, ends before the end."""

from collections.abc import Callable, Generator

import pytest
import torch
from torch import Tensor

from model.sampling.noise import MAX_SEED, initial_noise
from model.sampling.samplers import SAMPLERS, Trajectory
from model.sampling.schedules import sigmas_simple
from model.sampling.trajectory import SEED_STRIDE, TrajectoryPass, enlarged_latents, held, walk

SHAPE = (1, 4, 1, 6, 8)
MEAN = 0.4


def denoise(x: Tensor, sigma: float) -> Tensor:
    """The exact answer for data ~ N(0.4, 0.6^2)."""
    a = 1 - sigma
    return MEAN + a * 0.36 / ((a * 0.6) ** 2 + sigma**2) * (x - a * MEAN)


def run(trajectory: Trajectory, seen: list[tuple[Tensor, float]] | None = None) -> Tensor:
    x, sigma = next(trajectory)
    while True:
        if seen is not None:
            seen.append((x, sigma))
        try:
            x, sigma = trajectory.send(denoise(x, sigma))
        except StopIteration as end:
            return torch.as_tensor(end.value)


def refuse(latents: Tensor, leg: TrajectoryPass) -> Tensor:
    raise AssertionError("a single leg enlarges nothing")


def walked(*legs: TrajectoryPass, sampler: str = "euler", seed: int = 7,
           enlarge: Callable[[Tensor, TrajectoryPass], Tensor] = refuse) -> Trajectory:  # fmt: skip
    return walk(legs, SAMPLERS[sampler], seed=seed, enlarge=enlarge)


def origin(value: float = -1.5) -> Tensor:
    return torch.full(SHAPE, value)


def left_half() -> Tensor:
    mask = torch.zeros(1, 1, 1, 6, 8)
    mask[..., :4] = 1
    return mask


def test_from_noise_the_first_question_is_the_noise() -> None:
    x, sigma = next(walked(TrajectoryPass(SHAPE, sigmas_simple(5))))
    assert sigma == 1
    assert torch.equal(x, initial_noise(7, SHAPE))


def test_a_start_is_mixed_with_the_noise_of_its_level() -> None:
    sigmas = sigmas_simple(10)[-6:]
    x, sigma = next(walked(TrajectoryPass(SHAPE, sigmas, origin())))
    assert sigma == sigmas[0]
    expected = sigmas[0] * initial_noise(7, SHAPE) + (1 - sigmas[0]) * origin()
    assert torch.equal(x, expected)


def test_without_levels_the_origin_is_the_result() -> None:
    trajectory = walked(TrajectoryPass(SHAPE, torch.zeros(1), origin()))
    with pytest.raises(StopIteration) as end:
        next(trajectory)
    assert torch.equal(end.value.value, origin())


def test_a_leg_from_nowhere_to_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="sigmas has shape"):
        next(walked(TrajectoryPass(SHAPE, torch.zeros(1))))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_repaints_inside_and_keeps_outside(sampler: str) -> None:
    mask, seen = left_half(), list[tuple[Tensor, float]]()
    leg = TrajectoryPass(SHAPE, sigmas_simple(12)[-9:], origin(), mask)
    result = run(walked(leg, sampler=sampler), seen)
    outside, inside = result[..., 4:], result[..., :4]
    assert torch.equal(outside, origin()[..., 4:])
    assert (inside - origin()[..., :4]).abs().min() > 0.1
    noise = initial_noise(7, SHAPE)
    for x, sigma in seen:
        assert x.shape == SHAPE
        kept = sigma * noise + (1 - sigma) * origin()
        assert torch.equal(x[..., 4:], kept[..., 4:])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_white_mask_changes_nothing(sampler: str) -> None:
    sigmas = sigmas_simple(8)[-6:]
    plain = run(walked(TrajectoryPass(SHAPE, sigmas, origin()), sampler=sampler))
    white = run(
        walked(TrajectoryPass(SHAPE, sigmas, origin(), torch.ones(1, 1, 1, 6, 8)), sampler=sampler)
    )
    assert torch.equal(plain, white)


def test_closing_closes_what_is_inside() -> None:
    closed = []

    def inner() -> Generator[tuple[Tensor, float], Tensor, Tensor]:
        try:
            while True:
                yield torch.zeros(SHAPE), 0.5
        finally:
            closed.append(True)

    trajectory = held(inner(), origin(), torch.zeros(SHAPE), left_half())
    next(trajectory)
    trajectory.send(torch.zeros(SHAPE))
    trajectory.close()
    assert closed == [True]


def test_a_second_leg_goes_on_from_the_enlarged_first_with_noise_of_its_own() -> None:
    large = (1, 4, 1, 9, 12)
    ends: list[Tensor] = []

    def enlarge(latents: Tensor, leg: TrajectoryPass) -> Tensor:
        ends.append(latents)
        return enlarged_latents(latents, *leg.shape[-2:])

    sigmas = sigmas_simple(8)[-5:]
    first, second = TrajectoryPass(SHAPE, sigmas_simple(4)), TrajectoryPass(large, sigmas)
    seen: list[tuple[Tensor, float]] = []
    result = run(walked(first, second, enlarge=enlarge), seen)
    assert result.shape == large
    assert [x.shape for x, _ in seen] == [SHAPE] * 4 + [large] * 4
    assert torch.equal(ends[0], run(walked(first)))
    own = initial_noise((7 + SEED_STRIDE) % (MAX_SEED + 1), large)
    expected = sigmas[0] * own + (1 - sigmas[0]) * enlarged_latents(ends[0], 9, 12)
    assert torch.equal(seen[4][0], expected)


@pytest.mark.parametrize("seed", [0, SEED_STRIDE - 1, SEED_STRIDE, MAX_SEED])
def test_every_seed_has_a_second_one_that_is_no_neighbour(seed: int) -> None:
    second = (seed + SEED_STRIDE) % (MAX_SEED + 1)
    assert 0 <= second <= MAX_SEED
    assert abs(second - seed) > 2**50


def test_enlarged_latents_keep_flat_fields() -> None:
    assert torch.allclose(enlarged_latents(origin(), 9, 12), torch.full((1, 4, 1, 9, 12), -1.5))
