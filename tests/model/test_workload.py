"""The passes, steps and cost of requests."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.resolved_request import ResolvedHires
from model.sampler_catalog import evaluations
from model.sampling.schedules import SCHEDULES
from model.timesteps import TABLE_LENGTH
from model.workload import (
    completed_steps,
    megapixel_steps,
    sampling_passes,
    shorten_schedule,
    total_steps,
)
from tests.support.requests import request

HIRES = ResolvedHires(
    scale=2, width=256, height=192, steps=5, strength=0.5, upscaler="lanczos"
)  # fmt: skip


def test_a_lower_strength_runs_the_end_of_a_longer_schedule() -> None:
    for steps, strength, built, run in (
        (20, 1.0, 20, 20),
        (20, 0.6, 33, 20),  # int(33.3)
        (20, 0.02, 1000, 20),
        (100, 0.05, 1000, 50),  # 2000 steps exceed the table
        (20, 0.0001, 1000, 1),
        (20, 0.0, 20, 0),
    ):
        assert shorten_schedule(steps, strength) == (built, run)


@given(st.integers(1, 200), st.floats(0, 1, exclude_min=True))
def test_every_strength_gives_a_possible_schedule(steps: int, strength: float) -> None:
    built, run = shorten_schedule(steps, strength)
    assert 1 <= run <= steps <= built <= TABLE_LENGTH or built == steps == run
    assert run / built <= max(strength, 1 / TABLE_LENGTH) + 1 / built


def test_a_simple_request_has_one_pass() -> None:
    (only,) = sampling_passes(request(sampler="heun"))
    assert (only.width, only.height, only.built, only.steps) == (128, 96, 10, 10)
    assert only.evaluations == 19
    assert total_steps(request()) == 10


def test_a_pass_from_noise_runs_the_whole_schedule() -> None:
    for sampler, scheduler, steps in product(("euler", "heun", "uni_pc"), SCHEDULES, (1, 30, 150)):
        fields = {"sampler": sampler, "scheduler": scheduler, "steps": steps}
        (only,) = sampling_passes(request(**fields))
        assert only.evaluations == evaluations(sampler, scheduler, steps), fields
        assert only == sampling_passes(request(**fields, init_image="x", strength=1.0))[0], fields
        (late,) = sampling_passes(request(**fields, init_image="x", strength=0.3))
        assert late.levels == late.steps == steps, fields
        (latest,) = sampling_passes(request(**fields, init_image="x", strength=0.0005))
        assert 1 <= latest.levels <= 2, fields


def test_a_second_pass_has_its_own_size_steps_and_strength() -> None:
    first, second = sampling_passes(request(init_image="x", strength=0.5, hires=HIRES))
    assert (first.built, first.steps) == (20, 10)
    assert (second.width, second.height, second.built, second.steps) == (256, 192, 10, 5)


def test_work_counts_every_pass_at_its_size() -> None:
    plain = megapixel_steps(request())
    assert plain == pytest.approx(10 * 128 * 96 / 1e6)
    assert megapixel_steps(request(cfg_scale=4.0, num_images=3)) == pytest.approx(6 * plain)
    both = request(hires=HIRES)
    assert megapixel_steps(both) == pytest.approx(plain + 5 * 256 * 192 / 1e6)
    assert megapixel_steps(both, 10) == pytest.approx(plain)
    assert megapixel_steps(both, 0) == 0
    assert megapixel_steps(both, 15) == megapixel_steps(both)
    assert megapixel_steps(request(init_image="x", strength=0.0)) == 0
    fast = request(quality="fast", cfg_scale=4.0, hires=HIRES)
    asked = 7 * 128 * 96 / 1e6, 4 * 256 * 192 / 1e6  # of 10 and of 5
    assert megapixel_steps(fast) == pytest.approx(2 * sum(asked))
    assert megapixel_steps(fast, 10) == pytest.approx(2 * asked[0])


def test_steps_are_counted_over_both_passes() -> None:
    parts = sampling_passes(request(sampler="heun", hires=HIRES))
    evaluations = sum(part.evaluations for part in parts)
    assert evaluations == 19 + 9
    done = [completed_steps(parts, count) for count in range(evaluations + 1)]
    assert (done[0], done[19], done[-1]) == (0, 10, 15)
    assert done == sorted(done)


def test_a_request_without_sampling_has_one_step() -> None:
    kept = request(init_image="x", strength=0.0)
    assert total_steps(kept) == 1
    assert completed_steps(sampling_passes(kept), 0) == 1
    assert total_steps(request(init_image="x", strength=0.0, hires=HIRES)) == 5
