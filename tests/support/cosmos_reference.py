"""Runs the library's 17-channel transformer, which needs torchvision to resize a padding mask."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.transformers import transformer_cosmos
from torch import Tensor


def _resize(mask: Tensor, size: list[int], interpolation: Any) -> Tensor:
    assert interpolation == "nearest"
    return torch.nn.functional.interpolate(mask, size=size, mode="nearest")


def install_mask_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the one function of torchvision that the library calls."""
    transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=_resize),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
    )
    monkeypatch.setattr(transformer_cosmos, "transforms", transforms, raising=False)
