"""The whole service as a user starts it: `kirazuri up`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.ports import free_port


def wait_until_ready(client: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"kirazuri up ended with {process.returncode}:\n{log.read_text()}")
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"not ready in time:\n{log.read_text()}")


@contextmanager
def running(folder: Path, **variables: object) -> Iterator[httpx2.Client]:
    """Run `kirazuri up` with these variables; everything is stopped by one SIGINT afterwards."""
    port, log = free_port(), folder / "log"
    command = [sys.executable, "-m", "cli.main", "up", "--port", str(port), "--data", str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's environment
    environment["KIRAZURI_MAX_RATING"] = "explicit"  # prompts are run as they are written
    environment |= {name: str(value) for name, value in variables.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
            wait_until_ready(client, process, log)
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(45)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode in (0, 130), log.read_text()
