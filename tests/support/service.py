"""The complete service as a user starts it: `kirazuri up`."""

import os
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


def process_of(folder: Path, module: str) -> int:
    """The id of the process that runs the module and whose environment names the folder."""
    wanted = f"-m\0{module}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_of_service = os.fsencode(folder) in (entry / "environ").read_bytes()
            if is_of_service and wanted in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue  # it has ended
    raise AssertionError(f"{module} does not run")


@contextmanager
def halted_worker(folder: Path) -> Iterator[None]:
    """The worker of the service in the folder takes no job and makes no step in the block."""
    worker = process_of(folder, "worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)
