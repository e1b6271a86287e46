"""Full disks for the pictures and for the queue, and what a power loss leaves in its file."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.chaos.faults.fault import CannotBreak, fault

_TORN = b"*3\r\n$3\r\nSET\r\n$13\r\nkirazuri:torn"
"""The beginning of a command that nobody got a reply to."""


def filled(folder: Path) -> Iterator[None]:
    """The disk of a folder is full between two steps of this."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(65_536))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"0")
    yield
    ballast.unlink(missing_ok=True)


@fault("full disk for pictures", seconds=(1, 4))
def fill_pictures(cluster: Cluster) -> Iterator[None]:
    if cluster.has_own_disks:
        yield from filled(cluster.images)
        return
    away = cluster.images.with_name("away")  # a file in the place of the folder fails as well
    cluster.images.rename(away)
    cluster.images.touch()
    yield
    cluster.images.unlink()
    away.rename(cluster.images)


@fault("full disk for the queue", seconds=(2, 5), is_apart=True)
def fill_queue(cluster: Cluster) -> Iterator[None]:
    if not cluster.has_own_disks:
        raise CannotBreak("no small file system can be mounted here")
    yield from filled(cluster.redis_folder)


def _broken_file(cluster: Cluster, end: bytes) -> Iterator[None]:
    """Kill Redis and leave these bytes at the end of its file."""
    cluster.redis.is_kept_down = True
    cluster.redis.end(signal.SIGKILL)
    newest = max(cluster.redis_folder.rglob("*.aof"), key=lambda file: file.stat().st_mtime)
    if not newest.read_bytes().endswith(end):  # another fault has just done it
        with newest.open("ab") as file:
            file.write(end)
    yield
    cluster.redis.is_kept_down = False


@fault("torn append-only file", seconds=(0.1, 1))
def tear_file(cluster: Cluster) -> Iterator[None]:
    yield from _broken_file(cluster, _TORN)
