"""The targets that headers give are those of the loaded model."""

from pathlib import Path

import torch

from model.files.layouts import locate_parts
from model.files.lora.targets import read_targets
from model.network.load import load_components
from model.network.lora_merge import list_modules
from tests.support.random_checkpoint import random_models, tiny_card, write_checkpoint


def test_stored_and_loaded_targets_are_the_same(tmp_path: Path) -> None:
    card = tiny_card()
    write_checkpoint(tmp_path, random_models())
    loaded = load_components(card, tmp_path, device=torch.device("cpu"), dtype=torch.float32)
    stored = read_targets(
        locate_parts(card.files, tmp_path), latent_channels=card.transformer.latent_channels
    )
    from_modules = {target for target, _ in list_modules(loaded)}
    assert set(stored) == from_modules
    assert len(stored) == len(from_modules)
    assert any(target.bias for target in stored)
    assert any(len(target.shape) == 1 for target in stored)
