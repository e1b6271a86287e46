"""The Redis of `kirazuri up`: full disks, deleted folders, and its end with the service."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from redis import Redis

from cli.service.embedded_redis import EmbeddedRedis, StartError
from tests.support.disks import small_disk
from tests.support.waiting import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with TemporaryDirectory(prefix="kirazuri-") as name:
        yield Path(name) / "redis"


def _answers(server: EmbeddedRedis) -> bool:
    """Watch, as the service does all the time; whether the server takes a write."""
    server.watch()
    with (
        contextlib.suppress(redis.RedisError, OSError),
        Redis.from_url(server.url, retry=None) as client,
    ):
        client.set("written", 1)
        return True
    return False


def test_a_full_disk_is_named_once_and_the_server_returns_by_itself(folder: Path) -> None:
    lines: list[str] = []
    with small_disk(folder, "3m") as resize:
        server = EmbeddedRedis(folder, lines.append)
        try:
            with Redis.from_url(server.url) as client:
                client.set("kept", 1)
                with contextlib.suppress(redis.RedisError):
                    for number in range(100):
                        client.set(str(number), bytes(100_000))
            wait_until(lambda: not _answers(server) and bool(lines))
            for _ in range(3):  # each pause is longer than the one before
                wait_until(server._backoff.is_over)
                assert not _answers(server)
            problem = f"redis does not run: {folder} cannot be written: No space left on device"
            assert lines == [f"{problem}; it starts again in 1 s"]
            resize("30m")
            wait_until(lambda: _answers(server))
            with Redis.from_url(server.url) as client:
                assert client.get("kept") == b"1"
            wait_until(lambda: _answers(server) and "redis answers again" in lines)
        finally:
            server.stop()


def test_a_full_disk_at_the_start_is_named(folder: Path) -> None:
    with small_disk(folder, "100k"), pytest.raises(StartError, match=r"No space left on device$"):
        EmbeddedRedis(folder, print)


def test_a_disk_without_inodes_is_named(folder: Path) -> None:
    with (
        small_disk(folder, "30m,nr_inodes=2"),
        pytest.raises(StartError, match=r"No inode left on device$"),
    ):
        EmbeddedRedis(folder, print)


def test_a_read_only_disk_is_named(folder: Path) -> None:
    with small_disk(folder, "30m") as remount:
        server = EmbeddedRedis(folder, print)
        server.stop()
        remount("30m,ro")
        with pytest.raises(StartError, match="Read-only file system"):
            EmbeddedRedis(folder, print)


def test_a_crash_is_named_and_the_server_keeps_its_address(folder: Path) -> None:
    lines: list[str] = []
    server = EmbeddedRedis(folder / ("long" * 30), lines.append)
    try:
        with Redis.from_url(server.url) as client:
            client.set("kept", 1)
        url = server.url
        assert url.startswith("redis://127.0.0.1:")
        server._server.process.kill()
        server._server.process.wait()
        wait_until(lambda: _answers(server))
        assert server.url == url
        with Redis.from_url(url) as client:
            assert client.get("kept") == b"1"
        assert lines[0] == "redis does not run: it was ended by SIGKILL; it starts again in 1 s"
    finally:
        server.stop()


def test_a_deleted_folder_is_named_and_made_again(folder: Path) -> None:
    lines: list[str] = []
    server = EmbeddedRedis(folder, lines.append)
    try:
        shutil.rmtree(folder)
        wait_until(lambda: _answers(server))
        assert lines[0] == f"{folder} was deleted, and its jobs with it"
        with pytest.raises(StartError, match="another service uses"):
            EmbeddedRedis(folder, print)
    finally:
        server.stop()
