"""Starts what the queue's benchmark measures: a new Redis, one API process, a fake worker."""

import http.client
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from cli.bench.prompts import body
from cli.service import die_with_parent
from cli.service.service import environment, find_port
from model.resolved_request import ResolvedRequest
from worker.auth.api_keys import new_secret, secret_hash
from worker.redis_io import server as redis_server
from worker.redis_io.client import connect
from worker.redis_io.server import RedisServer
from worker.settings import Settings

OWNERS = 100
_HOST = "127.0.0.1"
_START_SECONDS = 600.0
_SAMPLE = re.compile(r"^(\w+) ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Owner:
    """An API key; `id` is the owner of its jobs."""

    secret: str
    id: str


@dataclass
class MeasuredService:
    """The processes, in `folder`. `owners` are API keys without limits."""

    folder: Path
    owners: list[Owner] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owners = [_owner() for _ in range(OWNERS)]
        keys = self.folder / "keys.toml"
        tables = [
            f'[owner-{number}]\nhash = "{secret_hash(owner.secret)}"'
            for number, owner in enumerate(self.owners)
        ]
        keys.write_text("\n".join(tables), encoding="utf-8")
        self.port = find_port(_HOST, 0)
        self.redis_seconds = self.api_seconds = 0.0
        self._redis = self._start_redis()
        self.settings = Settings(
            _env_file=None,
            store="local",
            redis_url=SecretStr(self._redis.url),
            data_dir=self.folder,
            keys_file=keys,
            auth="required",
            max_queue=1_000_000,
            max_connections=10_000,
        )
        self.client = connect(self._redis.url)
        try:
            self._api = self._start_api()
        except BaseException:
            self._redis.stop()
            raise

    @cached_property
    def template(self) -> ResolvedRequest:
        """The request of a job, with all fields filled by the API."""
        plan = self.call("POST", "/generate?dry_run=true", body=body(0))
        return ResolvedRequest.model_validate(plan["request"])

    def restart(self) -> None:
        """Kill both and start them again; sets `redis_seconds` and `api_seconds`."""
        for process in (self._api, self._redis.process):
            process.kill()
            process.wait()
        self._redis = self._start_redis()
        self._api = self._start_api()

    def clear(self) -> None:
        """Delete all data, also what the append-only file still has of them."""
        self.client.flushall()
        self.client.bgrewriteaof()
        self.settle()

    def settle(self) -> None:
        """Wait until Redis does not rewrite its file, which slows everything down."""
        while True:
            state: Any = self.client.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """End both."""
        self._api.kill()
        self._api.wait()
        self._redis.stop()

    @contextmanager
    def worker(self, rate: float) -> Iterator[None]:
        """A fake worker that ends `rate` jobs a second; 0 sends heartbeats only."""
        command = [sys.executable, "-m", "cli.bench.fake_worker", str(rate)]
        process = self._run(command, "worker.log")
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def call(self, method: str, path: str, *, body: str | None = None, owner: int = 0) -> Any:
        """The JSON of a response, or its text; raises RuntimeError unless the status is 2xx."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=_START_SECONDS)
        try:
            connection.request(method, path, body, self.headers(owner))
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {text[:300]}")
        return json.loads(text) if "json" in (answer.getheader("content-type") or "") else text

    def headers(self, owner: int) -> dict[str, str]:
        """The headers of a request with the key of an owner."""
        secret = self.owners[owner].secret
        return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    def process_metric(self, name: str) -> float:
        """A metric of the API process, such as `process_cpu_seconds_total`; NaN if it has none."""
        samples = dict(_SAMPLE.findall(self.call("GET", "/metrics")))
        return float(samples.get(name, "nan"))

    def redis_bytes(self) -> int:
        """Memory that Redis uses for its data."""
        info: Any = self.client.info("memory")
        return int(info["used_memory"])

    def _start_redis(self) -> RedisServer:
        began = time.monotonic()
        launcher = die_with_parent.command([])
        server = redis_server.start(self.folder / "redis", launcher=launcher)
        self.redis_seconds = time.monotonic() - began
        return server

    def _start_api(self) -> "subprocess.Popen[bytes]":
        began = time.monotonic()
        process = self._run([sys.executable, "-m", "api", "--port", str(self.port)], "api.log")
        try:
            self._await_answer(process, until=began + _START_SECONDS)
        except BaseException:  # what still runs would write into a folder that is being removed
            process.kill()
            process.wait()
            raise
        self.api_seconds = time.monotonic() - began
        return process

    def _await_answer(self, process: "subprocess.Popen[bytes]", *, until: float) -> None:
        while not self._is_answering():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "api.log").read_text()[-2000:])
            time.sleep(0.02)

    def _is_answering(self) -> bool:
        try:
            self.call("GET", "/jobs")
        except (OSError, RuntimeError, http.client.HTTPException):
            return False
        return True

    def _run(self, command: list[str], log: str) -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own arguments
                die_with_parent.command(command),
                env=environment(self.settings),
                stdout=output,
                stderr=output,
            )


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may; child processes inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _owner() -> Owner:
    secret = new_secret()
    return Owner(secret, secret_hash(secret)[:16])
