"""Append-only files that a server cannot use as they are."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from tests.support.paths import ROOT
from tests.support.waiting import wait_until
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


TORN = b"*3\r\n$3\r\nSET\r\n$5\r\nab"


def _used_folder(folder: Path) -> Path:
    """Fill a data folder with two keys and a transaction of two more; its open file."""
    server = redis_server.start(folder)
    with Redis.from_url(server.url) as client:
        client.mset({"a": 1, "b": 2})
        client.set("last", 1)
        client.eval("redis.call('SET', 'c', 1) redis.call('SET', 'd', 2)", 0)
    server.stop()
    (file,) = (folder / "appendonlydir").glob("*.incr.aof")
    return file


def _keys(folder: Path, lines: list[str]) -> set[bytes]:
    server = redis_server.start(folder, report=lines.append)
    with Redis.from_url(server.url) as client:
        found = set(client.keys())
    server.stop()
    return found


@pytest.mark.parametrize(
    "garbage",
    [bytes(4096), bytes(range(256)), TORN + bytes(300), b"*1\r\n$5\r\nMULTI\r\n" + TORN + bytes(9)],
    ids=["zeros", "anything", "torn command", "torn transaction"],
)
def test_garbage_at_the_end_is_cut_off_and_a_copy_is_kept(garbage: bytes, folder: Path) -> None:
    """As a power loss leaves it."""
    file = _used_folder(folder)
    whole = file.read_bytes()
    file.write_bytes(whole + garbage)
    lines: list[str] = []
    assert _keys(folder, lines) == {b"a", b"b", b"c", b"d", b"last"}
    (copy,) = folder.glob("*.damaged-*")
    assert copy.read_bytes() == whole + garbage
    assert file.read_bytes().startswith(whole)
    assert len(lines) == 1
    assert f"{len(garbage)} bytes of garbage are cut off from {file}; {copy}" in lines[0]


def test_the_reason_names_the_damaged_file_and_no_tool_that_is_not_there(folder: Path) -> None:
    """A restarted server ends with this reason; the next start repairs the file."""
    file = _used_folder(folder)
    file.write_bytes(file.read_bytes() + bytes(300))
    server = redis_server.launch(folder)
    server.process.wait(60)
    assert server.why_ended() == f"its append-only file {file.name} is damaged"


@pytest.mark.parametrize("missing", [1, 20, 50])
def test_a_torn_end_needs_no_repair(missing: int, folder: Path) -> None:
    """The server leaves out what was not written whole: a command, or a whole transaction."""
    file = _used_folder(folder)
    file.write_bytes(file.read_bytes()[:-missing])
    lines: list[str] = []
    assert _keys(folder, lines) == {b"a", b"b", b"last"}
    assert lines == []


def test_damage_before_other_commands_is_left_to_the_operator(folder: Path) -> None:
    """Acknowledged commands follow it; they may be jobs. The message ends with the command."""
    file = _used_folder(folder)
    content = file.read_bytes()
    damaged = content.replace(b"last", b"\xff" * 6)
    file.write_bytes(damaged)
    with pytest.raises(RedisServerError, match="is damaged at byte") as raised:
        redis_server.start(folder)
    assert file.read_bytes() == damaged
    command = str(raised.value).rpartition(": ")[2]
    subprocess.run(command, shell=True, check=True)
    assert _keys(folder, []) == {b"a", b"b"}
    (copy,) = folder.glob("*.damaged-*")
    assert copy.read_bytes() == damaged


def test_a_damaged_snapshot_is_named(folder: Path) -> None:
    _used_folder(folder)
    (base,) = (folder / "appendonlydir").glob("*.base.rdb")
    base.write_bytes(base.read_bytes() + b"garbage")
    with pytest.raises(RedisServerError, match=rf"{base.name} is damaged and cannot be repaired"):
        redis_server.start(folder)


def test_files_of_a_newer_server_are_told_as_such(folder: Path) -> None:
    """After a downgrade, or when the folder moved to a machine with an older server."""
    _used_folder(folder)
    (base,) = folder.glob("appendonlydir/*.base.rdb")
    whole = base.read_bytes()
    base.write_bytes(b"REDIS0099" + whole[9:])
    with pytest.raises(RedisServerError, match=r"newer server wrote its files \(RDB format 99\)"):
        redis_server.start(folder)
    base.write_bytes(whole)
    assert _keys(folder, []) == {b"a", b"b", b"c", b"d", b"last"}


@pytest.mark.parametrize("content", [None, b"", bytes(80)], ids=["lost", "empty", "zeros"])
def test_a_lost_manifest_is_written_anew(content: bytes | None, folder: Path) -> None:
    """Without a manifest the server would begin with an empty queue, and overwrite the files."""
    _used_folder(folder)
    manifest = folder / "appendonlydir/appendonly.aof.manifest"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    lines: list[str] = []
    assert _keys(folder, lines) == {b"a", b"b", b"c", b"d", b"last"}
    assert len(lines) == 1
    assert f"{manifest} was lost or damaged" in lines[0]


@pytest.mark.parametrize("kept", ["base", "incr"])
def test_a_manifest_that_lacks_a_line_is_written_anew(kept: str, folder: Path) -> None:
    """Each line is whole, so the server would believe it, and lose the jobs of the other file."""
    server = redis_server.start(folder)
    with Redis.from_url(server.url) as client:
        client.set("in the snapshot", 1)
        client.bgrewriteaof()
        wait_until(lambda: client.info("persistence")["aof_rewrites"])
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        client.set("after the snapshot", 1)
    server.stop()
    manifest = folder / "appendonlydir/appendonly.aof.manifest"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if f".{kept}." in line))
    reported: list[str] = []
    assert _keys(folder, reported) == {b"in the snapshot", b"after the snapshot"}
    assert len(reported) == 1
    assert f"{manifest} was lost or damaged" in reported[0]


def test_a_file_that_was_just_being_created_does_not_make_the_manifest_damaged(
    folder: Path,
) -> None:
    file = _used_folder(folder)
    file.with_name("appendonly.aof.2.incr.aof").touch()
    lines: list[str] = []
    assert _keys(folder, lines) == {b"a", b"b", b"c", b"d", b"last"}
    assert lines == []


def test_a_lost_manifest_of_many_files_is_left_to_the_operator(folder: Path) -> None:
    file = _used_folder(folder)
    shutil.copy(file, file.with_name("appendonly.aof.2.incr.aof"))
    file.with_name("appendonly.aof.manifest").unlink()
    with pytest.raises(RedisServerError, match=r"manifest is lost or damaged.*restore .* backup"):
        redis_server.start(folder)


def test_a_missing_file_is_named_with_the_command_to_go_on_without_it(folder: Path) -> None:
    file = _used_folder(folder)
    file.unlink()
    with pytest.raises(RedisServerError, match=rf"{file} is missing; restore it.*sed -i") as raised:
        redis_server.start(folder)
    subprocess.run(str(raised.value).rpartition("in it: ")[2], shell=True, check=True)
    assert _keys(folder, []) == set()


def test_two_queues_in_one_folder_are_refused(folder: Path) -> None:
    """The service of the release before was started again after the upgrade."""
    redis_server.start(folder).stop()
    shutil.copy(OLD_FILES / "commands.aof", folder / "appendonly.aof")
    with pytest.raises(RedisServerError, match=r"holds two queues: appendonly\.aof.*appendonlydir"):
        redis_server.start(folder)
