"""The whole service as a user starts it: `kirazuri up` with the checkpoint that ships."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.support.service import running


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a running `kirazuri up`."""
    with running(tmp_path_factory.mktemp("service")) as client:
        yield client
