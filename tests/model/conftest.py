"""A small random checkpoint, written once as the files that a real one consists of."""

import pytest
import torch

from model.network.load import Components, load_components
from tests.support.random_checkpoint import (
    WrittenCheckpoint,
    random_models,
    tiny_card,
    write_checkpoint,
)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> WrittenCheckpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    made = random_models()
    write_checkpoint(folder, made)
    return WrittenCheckpoint(folder, tiny_card(), made)


@pytest.fixture(scope="session")
def components(written: WrittenCheckpoint) -> Components:
    return load_components(
        written.card, written.folder, device=torch.device("cpu"), dtype=torch.float32
    )
