"""Append-only files that a server cannot use as they are."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from tests.support.paths import ROOT
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServerError

OLD_FILES = ROOT / "tests/data/redis-6.2"
"""Written by Redis 6.2: only commands, and a snapshot followed by commands."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with a path that is short enough for a socket."""
    with TemporaryDirectory(prefix="kirazuri-") as name:
        yield Path(name)


@pytest.mark.parametrize("name", ["commands.aof", "preamble.aof"])
def test_an_old_data_folder_is_taken_over(name: str, folder: Path) -> None:
    shutil.copy(OLD_FILES / name, folder / "appendonly.aof")
    lines: list[str] = []
    server = redis_server.start(folder, report=lines.append)
    with Redis.from_url(server.url, decode_responses=True) as client:
        assert client.get("string") == "1girl"
        assert client.hgetall("hash") == {"status": "running", "attempt": "1"}
        assert client.zrange("sorted", 0, -1, withscores=True) == [("a", 1.5), ("b", 2.0)]
        assert client.lrange("list", 0, -1) == ["x", "y"]
        assert client.xlen("stream") == 2
        client.set("after the upgrade", "kept")
    server.stop()
    copy = folder / "appendonly.aof.before-upgrade"
    assert copy.read_bytes() == (OLD_FILES / name).read_bytes()
    assert len(lines) == 1
    assert str(folder / "appendonly.aof") in lines[0]
    assert copy.name in lines[0]
    server = redis_server.start(folder, report=lines.append)
    with Redis.from_url(server.url, decode_responses=True) as client:
        assert client.get("after the rewrite") == "kept"
        assert client.get("after the upgrade") == "kept"
    server.stop()
    assert len(lines) == 1


def test_two_queues_in_one_folder_are_refused(folder: Path) -> None:
    """The service of the release before was started again after the upgrade."""
    redis_server.start(folder).stop()
    shutil.copy(OLD_FILES / "commands.aof", folder / "appendonly.aof")
    with pytest.raises(RedisServerError, match=r"holds two queues: appendonly\.aof.*appendonlydir"):
        redis_server.start(folder)
