"""The complete service as a user starts it: `kirazuri up`."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.cli import Running


@contextmanager
def running(folder: Path, **variables: object) -> Iterator[httpx2.Client]:
    """Run `kirazuri up` with these variables; one SIGINT stops it afterwards."""
    settings = {
        "KIRAZURI_MAX_RATING": "explicit",  # prompts are used as they are written
        "KIRAZURI_HEARTBEAT_SECONDS": "0.5",  # the worker's metrics arrive soon
        **{name: str(value) for name, value in variables.items()},
    }
    service = Running("up", "--port", "0", "--data", str(folder), folder=folder, **settings)
    try:
        address = re.search(r"ready at (\S+)", service.wait_for("ready at "))
        assert address
        with httpx2.Client(base_url=address[1], timeout=240, trust_env=False) as client:
            yield client
    finally:
        if service.process.poll() is None:
            code = service.end(signal.SIGINT)
            assert code in (0, 130), service.output()
