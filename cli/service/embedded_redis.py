"""Runs the Redis in the data folder; one process at a time may run it, others may connect."""

import contextlib
import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import redis

from cli.service import die_with_parent
from cli.service.child import Backoff
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServerError
from worker.settings import Settings

_LONGEST_PAUSE_SECONDS = 4.0
_LOCK_FILE = "lock"


class StartError(Exception):
    """The service, or its Redis, cannot be started; the message says why."""


def lock_folder(folder: Path) -> TextIO:
    """Lock the folder for this process: two servers would destroy its append-only file.

    Raises:
        StartError: another process holds the lock, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK_FILE).open("w")
    except OSError as exc:
        raise StartError(
            f"KIRAZURI_DATA_DIR: {folder.parent} cannot be written: {exc.strerror}"
        ) from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise StartError(
            f"another service uses {folder.parent.absolute()}: stop it, or name another folder "
            "with --data or KIRAZURI_DATA_DIR"
        ) from exc
    return file


class EmbeddedRedis:
    """A server that ends with this process; `watch` starts it again after a crash.

    `report` gets lines for the operator.

    Raises:
        StartError: it does not start.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._launcher = die_with_parent.command([])
        self._backoff = Backoff(longest=_LONGEST_PAUSE_SECONDS)
        self._problem: str | None = None
        self._lock = lock_folder(folder)
        try:
            self._server = redis_server.start(folder, launcher=self._launcher, report=report)
        except BaseException as exc:
            self._lock.close()
            if isinstance(exc, RedisServerError | OSError):
                raise StartError(str(exc)) from exc
            raise

    @property
    def url(self) -> str:
        """Where clients connect; it stays the same after a restart."""
        return self._server.url

    def watch(self) -> None:
        """Start it again if it has ended, after at most 4 s: it is back soon after the disk works.

        It comes back with everything that it acknowledged, and its clients reconnect.
        """
        if self._server.process.poll() is None:
            self._watch_running()
        elif (pause := self._backoff.ended()) is not None:
            self._name_problem(self._server.why_ended(), pause)
        elif self._backoff.is_over():
            self._restart()

    def stop(self) -> None:
        """Stop the server, which writes its data, and unlock the folder."""
        self._server.stop()
        self._lock.close()

    def _watch_running(self) -> None:
        if not self._folder.exists():
            self._report(f"{self._folder} was deleted, and its jobs with it")
            self._server.stop()
        elif self._problem is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                share = self._server.loading()
                if share is None:
                    self._report("redis answers again")
                    self._problem = None

    def _restart(self) -> None:
        self._backoff.started()
        try:
            redis_server.repair(self._server, self._report)
            if not (self._folder / _LOCK_FILE).exists():
                self._lock.close()
                self._lock = lock_folder(self._folder)
            self._server = redis_server.launch(
                self._folder, launcher=self._launcher, url=self.url, report=self._report
            )
        except (RedisServerError, StartError, OSError) as exc:
            self._name_problem(str(exc), self._backoff.ended() or 0)

    def _name_problem(self, reason: str, pause: float) -> None:
        """Report why it does not run; the same reason only once."""
        if reason != self._problem:
            self._report(f"redis does not run: {reason}; it starts again in {pause:.0f} s")
        self._problem = reason


def has_redis(settings: Settings) -> bool:
    """Whether there is a Redis to connect to, or a folder of one that `kirazuri up` started."""
    return settings.redis_url is not None or (settings.data_dir / "redis").is_dir()


@contextmanager
def available_redis(settings: Settings) -> Iterator[str]:
    """The URL of the service's Redis: the configured one, the running one, or a temporary one.

    Raises:
        StartError: a Redis cannot be started.
    """
    folder = settings.data_dir / "redis"
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
    elif url := redis_server.running_url(folder):
        yield url
    else:
        place = settings.data_dir.absolute()
        print(f"no service runs in {place}; this is for the next one there", file=sys.stderr)
        server = EmbeddedRedis(folder, lambda line: print(line, file=sys.stderr))
        try:
            yield server.url
        finally:
            server.stop()
