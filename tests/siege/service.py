"""The besieged service: a real Redis and a real API process with default settings."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests.support.cli import clean_environment
from tests.support.ports import free_port
from worker.auth.api_keys import new_secret, secret_hash
from worker.redis_io import server as redis_server

_START_SECONDS = 120.0

KEYS = {
    "friend": "",
    "foe": "",
    "other-foe": "",
    "powerless": "concurrency = 0\n",
}
"""Names of the keys, with their limits."""


@dataclass(frozen=True)
class BesiegedService:
    """A running service that requires keys."""

    port: int
    process: "subprocess.Popen[bytes]"
    secrets: dict[str, str]
    log: Path
    units: Path
    """Where the process counts its work, if it does (tests/siege/units.py)."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether it answers a dry run, which needs Redis and the keys."""
        headers = {"authorization": f"Bearer {self.secrets['friend']}"}
        url = f"{self.url}/generate?dry_run=true"
        try:
            answer = httpx2.post(url, json={"prompt": "1girl"}, headers=headers, timeout=10)
        except httpx2.TransportError:
            return False
        return answer.status_code == 200

    def resident_bytes(self) -> int:
        """Resident memory of the API process."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(listed.stdout) * 1024


@contextmanager
def besieged_service(module: str = "api") -> Iterator[BesiegedService]:
    """Run Redis and `python -m module`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kirazuri-siege-")))
        redis = redis_server.start(folder / "redis")
        stack.callback(redis.stop)
        secrets = {name: new_secret() for name in KEYS}
        keys = folder / "keys.toml"
        keys.write_text("\n".join(_tables(secrets)), encoding="utf-8")
        port, log = free_port(), folder / "log"
        environment = clean_environment(
            KIRAZURI_REDIS_URL=redis.url,
            KIRAZURI_DATA_DIR=str(folder / "data"),
            KIRAZURI_AUTH="required",
            KIRAZURI_KEYS_FILE=str(keys),
            SIEGE_UNITS=str(folder / "units"),
        )
        output = stack.enter_context(log.open("wb"))
        command = [sys.executable, "-m", module, "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        service = BesiegedService(port, process, secrets, log, folder / "units")
        deadline = time.monotonic() + _START_SECONDS
        while not service.is_ready():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"not ready in time:\n{log.read_text()}")
            time.sleep(0.1)
        yield service


def _tables(secrets: dict[str, str]) -> Iterator[str]:
    """The key file."""
    for name, secret in secrets.items():
        yield f'[{name}]\nhash = "{secret_hash(secret)}"\n{KEYS[name]}'
