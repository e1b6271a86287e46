"""The service as processes: Redis behind a proxy, APIs, workers, webhook sender; and its faults."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from tests.chaos import webhook_receiver
from tests.chaos.clients import Clients
from tests.chaos.faults.fault import CannotBreak, Fault
from tests.chaos.member import Clock, Member, build_clock_library
from tests.chaos.redis_proxy import CuttableProxy
from tests.support.paths import ROOT
from tests.support.ports import free_port
from worker.auth.api_keys import new_secret, secret_hash
from worker.job import TERMINAL
from worker.queue.layout import redis_keys, rq_layout

APIS, WORKERS = 2, 3
OWNERS = {"greedy": "normal", "modest": "normal", "urgent": "high", "patient": "low"}
"""Keys and their priorities."""

CARD, OTHER_CARD = "kirazuri-tiny", "kirazuri-v1"

_PATIENCE_SECONDS = 60.0
_DISK_BYTES = 256 * 2**20
_MAX_CONNECTIONS = 4_000
_RESTART_SECONDS = 0.5
"""A supervisor's pause before it starts a process again that ended soon."""

T = TypeVar("T")


@dataclass
class Cluster:
    """All processes. `random` decides everything; `clients` is set when they begin."""

    folder: Path
    settings: dict[str, str]
    step_seconds: float
    random: random.Random
    redis_server: Path
    under_way: list[tuple[float, Iterator[None]]] = field(default_factory=list)
    redis_settings: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis_port = free_port()
        self.proxy = CuttableProxy(self.redis_port)
        self.secrets = {name: new_secret() for name in OWNERS}
        keys = self.folder / "keys.toml"
        keys.write_text("\n".join(map(self._key, OWNERS)))
        self.images = self.folder / "data" / "images"
        self.redis_folder = self.folder / "redis"
        self.has_own_disks = all([mount(self.images), mount(self.redis_folder)])
        self.api_urls = [f"http://127.0.0.1:{free_port()}" for _ in range(APIS)]
        self.clients: Clients
        self._applied: dict[str, str] = {}
        self._started_at: dict[str, float] = {}
        self._variables = {
            "PATH": "",
            "PYTHONPATH": str(ROOT),
            "KIRAZURI_REDIS_URL": f"redis://127.0.0.1:{self.proxy.port}/0",
            "KIRAZURI_DATA_DIR": str(self.folder / "data"),
            "KIRAZURI_KEYS_FILE": str(keys),
            "KIRAZURI_AUTH": "required",
            "KIRAZURI_CARD": CARD,
            "KIRAZURI_MAX_CONNECTIONS": str(_MAX_CONNECTIONS),
            **webhook_receiver.SETTINGS,
            **self.settings,
        }
        self._make_members()

    def _make_members(self) -> None:
        self.redis = Member("redis", self._redis_command(), {}, self.folder / "redis.log")
        self.apis = [
            self._member(
                f"api-{number}", ["api", "--port", url.rpartition(":")[2], "--stop-seconds=2"]
            )
            for number, url in enumerate(self.api_urls)
        ]
        self.sender = self._member("sender", ["api.webhooks.sender"])
        library = build_clock_library(self.folder)
        names = [f"worker-{number}" for number in range(WORKERS)]
        self.clocks = [Clock(library, self.folder / f"{name}.clock") for name in names if library]
        worker = ["tests.support.fake_worker", "--step-seconds", str(self.step_seconds)]
        self.workers = [self._member(name, worker) for name in names]
        for member, clock in zip(self.workers, self.clocks, strict=False):
            member.environment |= clock.environment
        self.stranger = self._member("stranger", worker, KIRAZURI_CARD=OTHER_CARD)
        self.stranger.is_kept_down = True

    @property
    def members(self) -> list[Member]:
        return [self.redis, *self.apis, *self.workers, self.sender, self.stranger]

    def any(self, members: Sequence[T]) -> T:
        """One of these, by chance."""
        return self.random.choice(members)

    # -- starting and stopping ---------------------------------------------------------------

    def start(self) -> None:
        """Start all processes and wait until the APIs are ready."""
        self._tend_until(lambda: all(map(self.is_ready, self.api_urls)), "ready")

    def stop(self) -> None:
        """Kill all processes."""
        for member in self.members:
            member.end(signal.SIGKILL)
        self.proxy.stop()
        for folder in (self.images, self.redis_folder):
            if folder.is_mount():
                subprocess.run(["umount", str(folder)], check=True)

    def is_ready(self, url: str) -> bool:
        """Whether an API says that it is ready."""
        try:
            return httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def tend(self) -> None:
        """Restart ended processes, and end the faults whose time is over."""
        for entry in [entry for entry in self.under_way if entry[0] <= time.monotonic()]:
            self.under_way.remove(entry)
            next(entry[1], None)
        now = time.monotonic()
        for member in self.members:
            is_due = now > self._started_at.get(member.name, 0.0) + _RESTART_SECONDS
            if is_due and member.restart_if_ended():
                self._started_at[member.name] = now
                if member is self.redis:
                    self._applied.clear()
        self._apply_redis_settings()

    def _tend_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        self.tend()
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {what} after {_PATIENCE_SECONDS:g} s: {self.log_ends()}")
            time.sleep(0.05)
            self.tend()

    def await_apis(self) -> None:
        """Wait until the processes of all APIs have started again."""
        self._tend_until(lambda: all(map(_is_live, self.api_urls)), "live")

    def await_workers(self) -> None:
        """Wait until the processes of all workers have started again and registered."""
        self._tend_until(self._has_workers, "registered")

    def _has_workers(self) -> bool:
        with self.direct(seconds=0.5, retries=0) as client, contextlib.suppress(redis.RedisError):
            keys: Any = client.smembers(rq_layout.WORKERS_KEY)
            pids = {client.hget(key, "pid") for key in keys}
            return {str(worker.pid) for worker in self.workers} <= pids
        return False

    # -- faults ------------------------------------------------------------------------------

    def begin(self, fault: Fault, *, seconds: float | None = None) -> bool:
        """Begin a fault, which ends after a random time or `seconds`; False if it is skipped."""
        breaking = fault.begin(self)
        try:
            next(breaking)
        except CannotBreak as exc:
            self.skipped[fault.name] = str(exc)
            return False
        lasts = self.random.uniform(*fault.seconds) if seconds is None else seconds
        self.under_way.append((time.monotonic() + lasts, breaking))
        return True

    def calm(self) -> None:
        """End all faults in progress."""
        self.under_way = [(0.0, breaking) for _, breaking in self.under_way]
        self.tend()
        self._tend_until(lambda: self._applied == self.redis_settings, "calm")

    def await_redis_settings(self) -> None:
        """Wait until Redis has the settings that a fault gave it."""
        self._tend_until(lambda: self._applied == self.redis_settings, "configured")

    def _apply_redis_settings(self) -> None:
        """Give Redis its wanted settings; a stopped or dead one gets them later."""
        wanted = {k: v for k, v in self.redis_settings.items() if self._applied.get(k) != v}
        if not wanted:
            return
        with self.direct(seconds=0.5, retries=0) as client, contextlib.suppress(redis.RedisError):
            for name, value in wanted.items():
                client.config_set(name, value)
                self._applied[name] = value

    # -- looking -----------------------------------------------------------------------------

    def direct(self, *, seconds: float = 5, retries: int = 10) -> "redis.Redis":
        """A client of Redis that bypasses the proxy."""
        return redis.Redis(
            port=self.redis_port,
            decode_responses=True,
            socket_timeout=seconds,
            retry=Retry(ExponentialBackoff(cap=1, base=0.1), retries),
        )

    def unfinished(self, job_ids: Sequence[str]) -> list[str]:
        """Those of these jobs that have not ended."""
        with self.direct() as client:
            states = {one: client.hget(redis_keys.job_key(one), "status") for one in job_ids}
        return [job_id for job_id, state in states.items() if state not in TERMINAL]

    def new_logs(self) -> Callable[[], str]:
        """A function that reads what all processes have logged from now on."""
        sizes = {one.name: len(one.new_lines(0).encode()) for one in self.members}
        return lambda: "".join(one.new_lines(sizes[one.name]) for one in self.members)

    def log_ends(self) -> str:
        """The end of every log."""
        return "\n".join(f"-- {one.name}\n{one.new_lines(0)[-800:]}" for one in self.members)

    # -- commands ----------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        digest = secret_hash(self.secrets[name])
        return f'[{name}]\nhash = "{digest}"\npriority = "{OWNERS[name]}"\n'

    def _member(self, name: str, module: Sequence[str], **variables: str) -> Member:
        command = [sys.executable, "-m", *module]
        return Member(name, command, {**self._variables, **variables}, self.folder / f"{name}.log")

    def _redis_command(self) -> list[str]:
        options = {
            "--port": str(self.redis_port),
            "--bind": "127.0.0.1",
            "--dir": str(self.redis_folder),
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--maxmemory-policy": "noeviction",
        }
        return [str(self.redis_server), *(part for pair in options.items() for part in pair)]


def mount(folder: Path) -> bool:
    """Mount a small disk, if this user may; whether it is mounted."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    options = ["-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(folder)]
    return subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    """Remove the small disk, if there is one."""
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def _is_live(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/livez", timeout=5, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
