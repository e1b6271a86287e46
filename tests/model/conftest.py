"""A small random checkpoint, written once as the files that a real one consists of."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from model.network.load import Components
    from tests.support.random_checkpoint import WrittenCheckpoint


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> "WrittenCheckpoint":
    # Imported here: most tests of prompts, policies and recipes run without torch.
    from tests.support.random_checkpoint import (
        WrittenCheckpoint,
        random_models,
        tiny_card,
        write_checkpoint,
    )

    folder = tmp_path_factory.mktemp("checkpoint")
    made = random_models()
    write_checkpoint(folder, made)
    return WrittenCheckpoint(folder, tiny_card(), made)


@pytest.fixture(scope="session")
def components(written: "WrittenCheckpoint") -> "Components":
    import torch

    from model.network.load import load_components

    return load_components(
        written.card, written.folder, device=torch.device("cpu"), dtype=torch.float32
    )
