"""The Redis in the data folder: one process at a time runs it, others of this user may ask it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cli.service import leash
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServer, RedisServerError
from worker.settings import Settings


class StartError(Exception):
    """The service, or its Redis, cannot be started; the message says why."""


def lock_folder(folder: Path) -> TextIO:
    """Hold the folder for this process: two servers on one append-only file would destroy it.

    Raises:
        StartError: another process holds it, or it cannot be written.
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


def start_redis(folder: Path) -> RedisServer:
    """A server that dies with this process. StartError where it does not come up."""
    try:
        return redis_server.start(folder, launcher=leash.command([]))
    except (RedisServerError, OSError) as exc:
        raise StartError(str(exc)) from exc


@contextmanager
def redis_of(settings: Settings) -> Iterator[str]:
    """The URL of the service's Redis: the one that is set, the one that runs, or one for a moment.

    Raises:
        StartError: there is none, and none can be started.
    """
    folder = settings.data_dir / "redis"
    if settings.redis_url is not None:
        yield settings.redis_url.get_secret_value()
    elif url := redis_server.running_url(folder):
        yield url
    else:
        with lock_folder(folder):
            server = start_redis(folder)
            try:
                yield server.url
            finally:
                server.stop()
