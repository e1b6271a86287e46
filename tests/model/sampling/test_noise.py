"""The noise of a seed: reproducible, independent, and within the limits of seeds."""

import hashlib
import json
import threading
from typing import Any

import pytest
import torch

from model.request import MAX_SEED
from model.sampling.noise import initial_noise, noise_stream
from model.sampling.samplers import SAMPLERS
from model.sampling.trajectory import PassInputs, run_passes
from tests.support.paths import DATA
from tests.support.waiting import wait_until

CHECK = json.loads((DATA / "samplers.json").read_text())["noise_check"]
SHAPE = (1, 16, 1, 16, 24)


def test_initial_noise_of_seed_42_is_that_of_other_programs() -> None:
    noise = initial_noise(42, (1, 16, 1, 128, 128))
    flat = noise.flatten()
    assert noise.dtype == torch.float32
    assert flat[:4].tolist() == CHECK["first4"]
    assert flat[-1].item() == CHECK["last"]
    digest = hashlib.sha256(flat.numpy().tobytes()).hexdigest()
    assert digest.startswith(CHECK["sha256_of_bytes_prefix"])


def test_the_stream_starts_from_the_next_seed() -> None:
    draw = noise_stream(42, SHAPE)
    first, second = draw(), draw()
    assert torch.equal(first, initial_noise(43, SHAPE))
    assert not torch.equal(first, initial_noise(42, SHAPE))
    assert not torch.equal(first, second)


def test_streams_are_independent() -> None:
    alone = noise_stream(7, SHAPE)
    expected = [alone() for _ in range(3)]
    mine, other = noise_stream(7, SHAPE), noise_stream(8, SHAPE)
    drawn = []
    for _ in range(3):
        other()
        torch.randn(5)
        initial_noise(7, SHAPE)
        drawn.append(mine())
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_noise_is_drawn_ahead_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same bits, and the thread that runs the steps draws nothing itself."""
    expected = torch.Generator("cpu").manual_seed(8)
    randn, drawn_by = torch.randn, list[str]()

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        drawn_by.append(threading.current_thread().name)
        return randn(*args, **options)

    monkeypatch.setattr(torch, "randn", recorded)
    draw = noise_stream(7, SHAPE)
    for _ in range(3):
        drawn_by.clear()
        noise = draw()
        wait_until(lambda: drawn_by)
        assert torch.equal(noise, randn(SHAPE, generator=expected, dtype=torch.float32))
        assert threading.current_thread().name not in drawn_by


def test_initial_noise_begins_before_the_trajectory_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[tuple[int, ...]]()
    randn = torch.randn

    def recorded(shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        drawn.append(shape)
        return randn(shape, **options)

    initial_noise(1, SHAPE)  # what other tests draw ahead was drawn before
    monkeypatch.setattr(torch, "randn", recorded)
    passes = [PassInputs(SHAPE, torch.tensor([1.0, 0.5, 0.0]))] * 2
    trajectory = run_passes(passes, SAMPLERS["euler"], seed=1, upscale=lambda x, _: x)
    wait_until(lambda: drawn == [SHAPE, SHAPE])
    trajectory.close()


def test_torchs_global_generator_is_not_used() -> None:
    before = torch.random.get_rng_state()
    initial_noise(1, SHAPE)
    noise_stream(1, SHAPE)()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seeds_at_the_limits() -> None:
    for seed in (0, MAX_SEED):
        assert initial_noise(seed, SHAPE).isfinite().all(), seed
        assert noise_stream(seed, SHAPE)().isfinite().all(), seed


def test_seeds_beyond_the_limits_are_refused() -> None:
    for seed in (-1, MAX_SEED + 1):
        with pytest.raises(ValueError, match=f"seed is {seed}, must be 0 to {MAX_SEED}"):
            initial_noise(seed, SHAPE)
        with pytest.raises(ValueError, match=f"seed is {seed}"):
            noise_stream(seed, SHAPE)
