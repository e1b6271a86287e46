"""The complete service as a user starts it: `kirazuri up` with the checkpoint that ships."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.service import running


@pytest.fixture(scope="package")
def lora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LoRA folder of the service, which is empty when the service starts."""
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="package")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the service."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="package")
def service(service_folder: Path, lora_folder: Path) -> Iterator[httpx2.Client]:
    """A client of a running `kirazuri up`."""
    with running(service_folder, KIRAZURI_LORA_DIR=lora_folder) as client:
        yield client
