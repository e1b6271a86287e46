"""A device that is not there is told in one line; the fastest number of threads is found."""

import time

import pytest
import torch

from model.errors import DeviceMissing
from model.network.device import (
    empty_cache,
    fewest_fast,
    find_device,
    memory_limit,
    time_threads,
)


def test_a_device_that_is_there_is_found() -> None:
    assert find_device("cpu") == torch.device("cpu")


def test_a_word_that_names_no_device_is_told() -> None:
    with pytest.raises(DeviceMissing, match="KIRAZURI_DEVICE=gpu: ") as caught:
        find_device("gpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a build for CPUs")
def test_a_gpu_is_refused_by_a_build_for_cpus() -> None:
    with pytest.raises(DeviceMissing, match=r"without CUDA; .* make install TORCH_INDEX="):
        find_device("cuda:0")


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_device("cuda") == torch.device("cuda")
    with pytest.raises(DeviceMissing, match=r"KIRAZURI_DEVICE=cuda:1, .* finds 1 NVIDIA GPUs"):
        find_device("cuda:1")


class Cores:
    """Stands in for time and threads: a run takes as long as `seconds` says for its threads."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.now, self.threads, self.runs = 0.0, 0, list[int]()
        self._seconds = seconds
        patch.setattr(time, "perf_counter", lambda: self.now)
        patch.setattr(torch, "set_num_threads", lambda count: setattr(self, "threads", count))

    def run(self) -> None:
        self.runs.append(self.threads)
        self.now += self._seconds.get(self.threads, 0.01)


@pytest.mark.parametrize(
    ("seconds", "most", "fastest"),
    [
        ({1: 0.010, 2: 0.012}, 2, 1),  # as the small checkpoint
        ({1: 0.020, 2: 0.012}, 2, 2),
        ({1: 0.0104, 2: 0.010}, 2, 1),  # fewer threads if they are nearly as fast
        ({1: 0.030, 2: 0.020, 4: 0.012, 6: 0.015}, 6, 4),
        ({1: 0.030, 2: 0.020, 4: 0.012, 6: 0.010}, 6, 6),
        ({1: 0.5, 2: 0.3}, 2, 2),
    ],
)
def test_the_fastest_number_of_threads_is_found(
    seconds: dict[int, float], most: int, fastest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = Cores(monkeypatch, seconds)
    times = time_threads(cores.run, most)
    assert times == pytest.approx(seconds)
    assert fewest_fast(times) == fastest
    assert cores.now <= 0.8 + max(seconds.values()), "readiness waits no longer"
    assert len(cores.runs) <= 1 + 7 * len(seconds)


def test_every_number_of_threads_is_tried_on_a_machine_that_is_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = Cores(monkeypatch, {0: 5.0, 1: 3.0, 2: 2.0, 4: 1.0})
    assert time_threads(cores.run, 4) == pytest.approx({1: 3.0, 2: 2.0, 4: 1.0})
    assert cores.runs == [0, 1, 2, 4]


@pytest.mark.parametrize("name", ["mps", "mps:0"])
def test_apples_gpu_is_left_to_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name only: no test machine has one."""
    found = find_device(name)
    assert found.type == "mps"
    assert memory_limit(found, 0) is None
    assert memory_limit(found, 6) == 6_000_000_000
    released: list[str] = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: released.append(name))
    empty_cache(found)
    assert released == [name]
