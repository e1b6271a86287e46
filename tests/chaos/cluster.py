"""The service as processes: Redis behind a proxy, APIs, workers, webhook sender; and faults."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from tests.chaos import webhook_receiver
from tests.chaos.redis_proxy import CuttableProxy
from tests.support.paths import ROOT
from worker.auth.api_keys import new_secret, secret_hash
from worker.redis_io.server import find_redis_server

APIS, WORKERS = 2, 3
OWNERS = {"greedy": "normal", "modest": "normal", "urgent": "high", "patient": "low"}
"""Keys and their priorities."""

_CALM_SECONDS = 60.0
DISK_BYTES = 64 * 2**20
_CODE = ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Member:
    """A process that is restarted after it has ended."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    restarts: int = -1
    process: "subprocess.Popen[bytes] | None" = None

    def restart_if_ended(self) -> None:
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, cwd=_CODE, stdout=output, stderr=output
                )
            self.restarts += 1

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0


@dataclass
class Cluster:
    """All processes, and the faults by name. `calm` ends the faults in progress."""

    folder: Path
    settings: dict[str, str]
    step_seconds: float
    random: random.Random
    outage: float
    undo: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis_port = free_port()
        self.proxy = CuttableProxy(self.redis_port)
        self.secrets = {name: new_secret() for name in OWNERS}
        keys = self.folder / "keys.toml"
        keys.write_text("\n".join(map(self._key, OWNERS)))
        self.images = self.folder / "data" / "images"
        self.images.mkdir(parents=True)
        self.is_own_disk = self._mount()
        self.api_urls = [f"http://127.0.0.1:{free_port()}" for _ in range(APIS)]
        self.redis = Member("redis", self._redis_command(), {}, self.folder / "redis.log")
        url = f"redis://127.0.0.1:{self.proxy.port}/0"
        variables = {
            "PATH": "",
            "PYTHONPATH": str(_CODE),
            "KIRAZURI_REDIS_URL": url,
            "KIRAZURI_DATA_DIR": str(self.folder / "data"),
            "KIRAZURI_KEYS_FILE": str(keys),
            "KIRAZURI_AUTH": "required",
            **webhook_receiver.SETTINGS,
            **self.settings,
        }
        self.apis = [
            Member(f"api-{i}", _api_command(url), variables, self.folder / f"api-{i}.log")
            for i, url in enumerate(self.api_urls)
        ]
        sender = [sys.executable, "-m", "api.webhooks.sender"]
        self.sender = Member("sender", sender, variables, self.folder / "sender.log")
        worker = [sys.executable, "-m", "tests.support.fake_worker", "--step-seconds"]
        self.workers = [
            Member(
                f"worker-{i}",
                [*worker, str(self.step_seconds)],
                variables,
                self.folder / f"worker-{i}.log",
            )
            for i in range(WORKERS)
        ]

    @property
    def members(self) -> list[Member]:
        return [self.redis, *self.apis, *self.workers, self.sender]

    def _key(self, name: str) -> str:
        digest = secret_hash(self.secrets[name])
        return f'[{name}]\nhash = "{digest}"\npriority = "{OWNERS[name]}"\n'

    def start(self) -> None:
        """Start all processes and wait until the APIs are ready."""
        self.tend()
        deadline = time.monotonic() + 60
        for url in self.api_urls:
            while not _is_ready(url):
                self.tend()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{url} is not ready: {_log_ends(self.members)}")
                time.sleep(0.1)

    def tend(self) -> None:
        """Restart ended processes, and end the faults whose time is over."""
        for due, undo in [entry for entry in self.undo if entry[0] <= time.monotonic()]:
            undo()
            self.undo.remove((due, undo))
        for member in self.members:
            member.restart_if_ended()

    def calm(self) -> None:
        """End all faults in progress."""
        deadline = time.monotonic() + _CALM_SECONDS
        while self.undo and time.monotonic() < deadline:
            under_way, self.undo = self.undo, []
            for _, undo in under_way:
                undo()
            self.tend()
        if self.undo:
            raise RuntimeError(f"no calm after {_CALM_SECONDS:g} s: {_log_ends(self.members)}")

    def stop(self) -> None:
        """Kill all processes."""
        for member in self.members:
            member.send(signal.SIGKILL)
            if member.process:
                member.process.wait()
        self.proxy.stop()
        if self.is_own_disk:
            subprocess.run(["umount", str(self.images)], check=True)

    def direct(self, *, seconds: float = 5, retries: int = 10) -> "redis.Redis":
        """A client of Redis that bypasses the proxy."""
        return redis.Redis(
            port=self.redis_port,
            decode_responses=True,
            socket_timeout=seconds,
            retry=Retry(ExponentialBackoff(cap=1, base=0.1), retries),
        )

    # -- faults ------------------------------------------------------------------------------

    def faults(self) -> dict[str, Callable[[], None]]:
        return {
            "kill -9 worker": lambda: self._any(self.workers).send(signal.SIGKILL),
            "kill -9 api": lambda: self._any(self.apis).send(signal.SIGKILL),
            "kill -9 sender": lambda: self.sender.send(signal.SIGKILL),
            "kill -9 redis": lambda: self.redis.send(signal.SIGKILL),
            "terminate worker": lambda: self._any(self.workers).send(signal.SIGTERM),
            "stop worker": lambda: self._pause(self._any(self.workers), 1, 8),
            "stop api": lambda: self._pause(self._any(self.apis), 0.5, 3),
            "stop redis": lambda: self._pause(self.redis, 0.5, 3),
            "cut connections": self.proxy.cut,
            "refuse connections": self._refuse,
            "fill redis": self._fill_redis,
            "fill disk": self._fill_disk,
        }

    def _any(self, members: list[Member]) -> Member:
        return self.random.choice(members)

    def _later(self, low: float, high: float, undo: Callable[[], None]) -> None:
        self.undo.append((time.monotonic() + self.random.uniform(low, high), undo))

    def _pause(self, member: Member, low: float, high: float) -> None:
        member.send(signal.SIGSTOP)
        process = member.process

        def resume() -> None:
            if process is not None:
                process.send_signal(signal.SIGCONT)

        self._later(low, high, resume)

    def _refuse(self) -> None:
        """Refuse connections to Redis; the first time for the full outage."""
        self.proxy.shut()
        longest, self.outage = self.outage, 3.0
        self._later(0.5 if longest <= 3 else longest, longest, self.proxy.open)

    def _fill_redis(self) -> None:
        """Make Redis reject writes that need memory."""
        self._limit_redis("1")  # a stopped Redis applies it later
        self._later(0.5, 3, self._empty_redis)

    def _empty_redis(self) -> None:
        if not self._limit_redis("0"):  # stopped or dead: try again later
            self.undo.append((time.monotonic() + 0.2, self._empty_redis))

    def _limit_redis(self, maxmemory: str) -> bool:
        """Set the memory limit; whether Redis answered."""
        try:
            with self.direct(seconds=0.5, retries=0) as client:
                return bool(client.config_set("maxmemory", maxmemory))
        except redis.RedisError:
            return False

    def _fill_disk(self) -> None:
        """Make writing pictures fail: fill the mounted disk, or replace the folder by a file."""
        ballast = self.images / "ballast"
        if self.is_own_disk:
            with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(65_536))
            self._later(1, 4, lambda: ballast.unlink(missing_ok=True))
        elif self.images.is_dir():
            away = self.images.with_name("away")
            self.images.rename(away)
            self.images.touch()

            def restore() -> None:
                self.images.unlink()
                away.rename(self.images)

            self._later(1, 4, restore)

    def _mount(self) -> bool:
        """Mount a small disk for the pictures, if this user may; whether it is mounted."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return False
        options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(self.images)]
        return subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0

    def _redis_command(self) -> list[str]:
        folder = self.folder / "redis"
        folder.mkdir()
        options = {
            "--port": str(self.redis_port),
            "--bind": "127.0.0.1",
            "--dir": str(folder),
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--maxmemory-policy": "noeviction",
        }
        return [str(find_redis_server()), *(part for pair in options.items() for part in pair)]


def _api_command(url: str) -> list[str]:
    port = url.rpartition(":")[2]
    return [sys.executable, "-m", "api", "--port", port, "--stop-seconds", "2"]


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def _log_ends(members: list[Member]) -> str:
    """The end of every log."""
    return "\n".join(f"-- {m.name}\n{m.log.read_text(errors='replace')[-800:]}" for m in members)
