"""A device that is not there is told in one line."""

import pytest
import torch

from model.errors import DeviceMissing
from model.network.device import find_device


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
