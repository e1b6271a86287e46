"""No secret appears in a log line or a response: real processes at DEBUG with many failures."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import httpx2
import pytest
from PIL import Image
from pydantic import SecretStr
from redis import Redis

from tests.support.images import encode_file
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.auth.api_keys import new_secret, secret_hash
from worker.redis_io import server as redis_server
from worker.settings import Settings

WORD = "hush-Zq7Xv2Lk9"
"""Contained in every secret, so that a part of a secret is found as well."""

KEY = new_secret()
PASSWORD = f"{WORD}-redis"
SIGNING = "whsec_aHVzaC1acTdYdjJMazktd2ViaG9vay1zZWNyZXQ="  # hush-… in base64
SECRETS = {
    "redis_url": f"redis://:{PASSWORD}@127.0.0.1:1/0",
    "s3_access_key_id": f"{WORD}-id",
    "s3_secret_access_key": f"{WORD}-s3",
    "api_key": KEY,
    "webhook_secret": SIGNING,
}
NEEDLES = (WORD, KEY, SIGNING, SIGNING.removeprefix("whsec_"), secret_hash(KEY))


def variables(**settings: str) -> dict[str, str]:
    """A child's environment with all secrets; these settings override them."""
    others = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's
    own = {**SECRETS, "log_level": "DEBUG", **settings}
    return others | {f"KIRAZURI_{name.upper()}": value for name, value in own.items()}


def assert_no_secret(text: str) -> None:
    assert text
    for needle in NEEDLES:
        place = text.find(needle)
        assert place < 0, text[max(0, place - 300) : place + 100]


def is_secret(kind: Any) -> bool:
    """Whether a type is that of secrets, or has it among its parts."""
    return kind is SecretStr or any(is_secret(part) for part in get_args(kind))


def test_every_secret_setting_is_covered() -> None:
    fields = Settings.model_fields
    assert set(SECRETS) == {name for name in fields if is_secret(fields[name].annotation)}


INVALID = [
    *((command, "webhook_secret", f"whsec_{WORD}") for command in ("api", "worker", "cli.main up")),
    ("api", "redis_url", f"redis+sentinel://:{PASSWORD}@nowhere"),
    ("api", "redis_url", f"redis://:{PASSWORD}@127.0.0.1:port/0"),
]


def test_an_invalid_secret_is_not_printed(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            env=variables(data_dir=str(tmp_path), **{name: value}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, name, value in INVALID
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        assert_no_secret(output)


class FailingService:
    """API, worker and webhook sender with all secrets; everything but Redis is unreachable."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.answers: list[str] = []
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=120)
        self._redis = redis_server.start(folder / "redis")
        with Redis.from_url(self._redis.url) as connection:
            connection.config_set("requirepass", PASSWORD)
        _, _, self.socket = self._redis.url.partition("://")
        keys = folder / "keys.toml"
        keys.write_text(f'[alice]\nhash = "{secret_hash(KEY)}"\n')
        nobody = free_port()
        self._settings = {
            "redis_url": f"unix://:{PASSWORD}@{self.socket}",
            "data_dir": str(folder / "data"),
            "store": "s3://pictures",
            "s3_endpoint": f"http://127.0.0.1:{nobody}",
            "store_patience_seconds": "0.5",
            "keys_file": str(keys),
            "auth": "required",
            "webhook_networks": "127.0.0.1/32",
            "webhook_timeout_seconds": "1",
            "webhook_retry_seconds": "0.2",
            "maintenance_seconds": "0.5",
        }
        self.hook = f"https://127.0.0.1:{nobody}/hook"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._output = self.log.open("wb")

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        environment = variables(**{**self._settings, **changes})
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment,
            stdout=self._output,
            stderr=self._output,
        )
        self._processes.append(process)
        return process

    def ask(self, method: str, path: str, **options: Any) -> int:
        """Send a request and keep the response; its status."""
        answer = self.client.request(method, path, **options)
        self.answers += [str(answer.headers), answer.text]
        return answer.status_code

    def wait_for(self, word: str) -> None:
        """Wait until the log contains `word`."""
        wait_until(lambda: word in self.log.read_text(errors="replace"), seconds=120)

    def end_redis(self) -> None:
        self._redis.stop()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(20)
        self._redis.stop()
        self.client.close()
        self._output.close()


@pytest.fixture
def failing() -> Iterator[FailingService]:
    with TemporaryDirectory(prefix="kirazuri-secrets-") as folder:  # short, for Redis' socket
        running = FailingService(Path(folder))
        try:
            yield running
        finally:
            running.stop()


@pytest.mark.timeout(240)
def test_failures_print_no_secret(failing: FailingService) -> None:
    port = str(failing.client.base_url.port)
    api = failing.start("api", "--port", port)
    failing.wait_for("Uvicorn running")
    worker, sender = failing.start("worker"), failing.start("api.webhooks.sender")
    key = {"authorization": f"Bearer {KEY}"}

    body = {
        "prompt": "1girl, smile", "resolution": "96x96", "steps": 1,
        "webhook": {"url": failing.hook, "events": ["started"]},
    }  # fmt: skip
    assert failing.ask("POST", "/generate", json=body, headers=key) == 202
    for headers in ({}, {"authorization": f"Bearer {KEY}x"}, {"authorization": f"Basic {KEY}"}):
        for path in ("/jobs/x", "/v1/models", "/sdapi/v1/options", "/metrics"):
            assert failing.ask("GET", path, headers=headers) == 401
    picture = {
        **body,
        "init_image": base64.b64encode(encode_file(Image.new("RGB", (64, 64)))).decode(),
    }
    assert failing.ask("POST", "/generate", json=picture, headers=key) == 503
    assert failing.ask("GET", f"/images/{'a' * 40}.png", headers=key) == 404
    assert failing.ask("GET", "/readyz") == 503
    for path in ("/metrics", "/capabilities", "/docs", "/openapi.json", "/v1/models",
                 "/sdapi/v1/options", "/sdapi/v1/cmd-flags", "/internal/sysinfo"):  # fmt: skip
        assert failing.ask("GET", path, headers=key) == 200
    assert failing.ask("POST", "/generate", json={"steps": 0}, headers=key) == 422
    failing.wait_for("event=webhook_")
    failing.wait_for("event=store_")

    # A wrong password, and a Redis that is gone.
    other = free_port()
    changed = f"unix://:{WORD}-old@{failing.socket}"
    failing.start("api", "--port", str(other), redis_url=changed)
    failing.wait_for(f"Uvicorn running on http://127.0.0.1:{other}")
    assert failing.ask("GET", f"http://127.0.0.1:{other}/readyz") == 503
    assert failing.ask("GET", f"http://127.0.0.1:{other}/jobs/x", headers=key) in (404, 503)
    failing.end_redis()
    assert failing.ask("POST", "/generate", json=body, headers=key) == 503
    failing.wait_for("event=redis_away")

    for process in (api, worker, sender):
        arguments = Path(f"/proc/{process.pid}/cmdline")
        if arguments.exists():
            assert_no_secret(arguments.read_text())
    assert_no_secret("\n".join(failing.answers))
    assert_no_secret(failing.log.read_text(errors="replace"))
