"""The service for the fuzz tests: real Redis, real API, and a worker that paints noise."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests.support.pictures import finished, submit
from tests.support.ports import free_port
from worker.auth.api_keys import new_secret, secret_hash
from worker.redis_io import server as redis_server

_START_SECONDS = 120.0


class FuzzedService:
    """A running service that requires `key`; `log` has the output of API and worker."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "log"
        self.key = new_secret()
        self.headers = {"authorization": f"Bearer {self.key}"}
        self.image = ""
        """Name of an existing picture."""

    def ready(self) -> bool:
        """Whether the service is ready."""
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False


@contextmanager
def running_service(settings: Mapping[str, str]) -> Iterator[FuzzedService]:
    """Run the service with these settings, named without the prefix `KIRAZURI_`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kirazuri-fuzz-")))
        redis = redis_server.start(folder / "redis")
        stack.callback(redis.stop)
        service = FuzzedService(folder)
        keys = folder / "keys.toml"
        keys.write_text(f'[fuzzer]\nhash = "{secret_hash(service.key)}"\n')
        own = {"REDIS_URL": redis.url, "DATA_DIR": str(folder / "data"), **settings}
        own |= {"AUTH": "required", "KEYS_FILE": str(keys)}
        variables = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's
        variables |= {f"KIRAZURI_{name}": value for name, value in own.items()}
        output = stack.enter_context(service.log.open("wb"))
        for arguments in (
            ["-m", "api", "--port", service.url.rpartition(":")[2]],
            ["-m", "tests.support.fake_worker", "--step-seconds", "0.001"],
        ):
            process = subprocess.Popen(
                [sys.executable, *arguments], env=variables, stdout=output, stderr=output
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        deadline = time.monotonic() + _START_SECONDS
        while not service.ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not ready in time:\n{service.log.read_text()}")
            time.sleep(0.1)
        service.image = _picture(service)
        yield service


def _picture(service: FuzzedService) -> str:
    """Generate a picture; its name."""
    with httpx2.Client(base_url=service.url, headers=service.headers, timeout=60) as client:
        job = finished(client, submit(client, prompt="1girl, smile", resolution="128x128"))
    assert job["status"] == "succeeded", job
    return str(job["images"][0]["url"].rpartition("/")[2])
