"""Runs the Redis in the data folder; one process at a time may run it, others may connect."""

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cli.service import die_with_parent
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServer, RedisServerError
from worker.settings import Settings


class StartError(Exception):
    """The service, or its Redis, cannot be started; the message says why."""


def lock_folder(folder: Path) -> TextIO:
    """Lock the folder for this process: two servers would destroy its append-only file.

    Raises:
        StartError: another process holds the lock, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as exc:
        raise StartError(f"the data folder cannot be written: {exc}") from exc
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise StartError(f"another `kirazuri up` uses {folder.parent}; try another --data") from exc
    return file


def start_redis(folder: Path, report: Callable[[str], None]) -> RedisServer:
    """Start a server that ends with this process; `report` gets lines for the operator.

    Raises:
        StartError: it does not start.
    """
    try:
        return redis_server.start(folder, launcher=die_with_parent.command([]), report=report)
    except (RedisServerError, OSError) as exc:
        raise StartError(str(exc)) from exc


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
        with lock_folder(folder):
            server = start_redis(folder, lambda line: print(line, file=sys.stderr))
            try:
                yield server.url
            finally:
                server.stop()
