"""A loaded checkpoint that a test may change if it restores every weight."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from model.network.load import Components
from tests.support.lora_switches import all_weights


@pytest.fixture
def untouched(components: Components) -> Iterator[Components]:
    """A copy of the loaded checkpoint. Afterwards every bit and pointer must be as before."""
    own = replace(
        components,
        transformer=copy.deepcopy(components.transformer),
        conditioner=copy.deepcopy(components.conditioner),
        text_encoder=copy.deepcopy(components.text_encoder),
    )
    before = {name: (tensor, tensor.clone()) for name, tensor in all_weights(own).items()}
    yield own
    for name, tensor in all_weights(own).items():
        pointer, bits = before[name]
        assert tensor.data_ptr() == pointer.data_ptr(), name
        assert torch.equal(tensor, bits), name
