"""A wrong KIRAZURI_REDIS_URL: what `kirazuri up` says."""

import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from cli.service.external_redis import RedisUnusableError, check_redis
from tests.support.cli import kirazuri
from tests.support.ports import free_port
from tests.support.torch_free import needs_a_worker
from tests.support.waiting import wait_until
from worker.redis_io.client import check_url
from worker.redis_io.server import find_redis_server
from worker.settings import Settings

APPEND_ONLY = ("--appendonly", "yes")
SETTINGS = Settings(_env_file=None)


@contextmanager
def running(folder: Path, port: int, *options: str) -> Iterator[None]:
    """Run a server; it may still load its data."""
    folder.mkdir(exist_ok=True)
    command = [str(find_redis_server()), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(folder), "--save", "", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def _answers(port: int, password: str | None = None) -> bool:
    try:
        with Redis(port=port, password=password) as client:
            return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.service.external_redis._PATIENCE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with the password "sesame"."""
    port = free_port()
    options = ("--requirepass", "sesame", *APPEND_ONLY)
    with running(tmp_path_factory.mktemp("protected"), port, *options):
        wait_until(lambda: _answers(port, "sesame"))
        yield port


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:secret@127.0.0.1:{port}", "refuses the user or password"),
        ("redis://alice:secret@127.0.0.1:{port}", "refuses the user or password"),
        ("redis://127.0.0.1:{port}", "requires a password"),
        ("redis://:sesame@127.0.0.1:{port}/99", "cannot be used: DB index is out of range"),
        ("rediss://:sesame@127.0.0.1:{port}", r"does not answer: .* \(rediss:// .*speaks TLS"),
        ("redis+sentinel://:sesame@127.0.0.1:{port}/pictures", "no sentinel answers and knows"),
        ("redis://:secret@127.0.0.1:1", "does not answer: Error 111 .*Connection refused$"),
        ("redis://127.0.0.1:1?password=a@secret", "does not answer: Error 111 "),
        ("redis://:secret@name.invalid:6379", "does not answer: .*name.invalid"),
        ("unix:///nowhere/redis.sock", "does not answer: .*No such file or directory"),
    ],
)
def test_the_reason_is_named_without_the_password(url: str, reason: str, protected: int) -> None:
    with pytest.raises(RedisUnusableError, match=reason) as raised:
        check_redis(url.format(port=protected), SETTINGS, print)
    text = str(raised.value)
    assert text.startswith("the Redis of KIRAZURI_REDIS_URL (")
    assert "secret" not in text
    assert "sesame" not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1", "secret", "redis://:secret/x@127.0.0.1:1", "redis://:a#secret@127.0.0.1:1",
        "redis://:a?secret@127.0.0.1:1", "redis://:a[secret@127.0.0.1:1", "redis://default:secret",
        "redis://127.0.0.1:secret", "redis://:secret\uff0fx@127.0.0.1:1", "redis://127.0.0.1:1?password=a&secret=4",
        "redis://127.0.0.1:1?secret=4", "redis+sentinel://127.0.0.1:1/m/secret",
        "redis+sentinel://127.0.0.1:1/m?secret=1", "redis+sentinel://:a/secret@127.0.0.1:1/m",
        "redis://127.0.0.1:1/secret", "redis://127.0.0.1:1/4/2", "redis://:12/secret@127.0.0.1:1", "redis://127.0.0.1:1/-1",
        "redis://127.0.0.1:1/99999999999", "redis://127.0.0.1:1?db=99999999999", "redis://127.0.0.1:1?retry=secret",
        "redis://127.0.0.1:1?encoding=secret", "redis://127.0.0.1:1?encoding=ascii", "redis://127.0.0.1:1?connection_class=secret",
        "redis://127.0.0.1:1?protocol=3", "redis://127.0.0.1:1?socket_timeout=nan", "redis://127.0.0.1:1?secret",
        "rediss://127.0.0.1:1?ssl_cert_reqs=secret", "redis+sentinel://127.0.0.1:1/m?retry=secret", "redis+sentinel://127.0.0.1:99999/m",
        "redis+sentinel://127.0.0.1:1/m/99999999999", "unix://secret/redis.sock", "unix://", "unix:///redis.sock?retry=secret",
        "redis://:secret\udcff@127.0.0.1:1", "redis://secret..secret:1",
        f"redis://{'secret' * 11}:1",
        "redis+sentinel://..secret:1/m",
    ],
)  # fmt: skip
def test_no_part_of_a_url_that_cannot_be_read_is_shown(url: str) -> None:
    with pytest.raises(RedisUnusableError, match=r"^KIRAZURI_REDIS_URL cannot be read") as raised:
        check_redis(url, SETTINGS, print)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1", "redis://127.0.0.1:1/", "redis://user:secret@127.0.0.1:1/3", "valkey://127.0.0.1:1/0",
        "rediss://127.0.0.1:1/0?ssl_ca_certs=CERTIFICATES&ssl_cert_reqs=required", "valkeys://127.0.0.1:1?ssl_check_hostname=false",
        "unix:///run/redis.sock?db=2", "unix://user:secret@/run/redis.sock", "redis+sentinel://:a@127.0.0.1:1,127.0.0.1:2/m/1",
        "rediss+sentinel://127.0.0.1:1/m?sentinel_password=secret&ssl_certfile=CERTIFICATE&ssl_keyfile=KEY",
    ],
)  # fmt: skip
def test_usual_urls_can_be_read(url: str, authority: Path) -> None:
    files = {"CERTIFICATES": "ca.pem", "CERTIFICATE": "certificate.pem", "KEY": "key.pem"}
    for name, file in files.items():
        url = url.replace(f"={name}", f"={authority / file}")
    check_url(url)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("ssl_ca_certs=/none", "No such file or directory"),
        ("ssl_certfile=/none", "No such file or directory"),
        ("ssl_ca_certs=FOLDER/key.pem", ".+"),
        ("ssl_certfile=FOLDER/ca.pem&ssl_keyfile=FOLDER/key.pem", ".+"),
        ("ssl_ca_data=secret", ".+"),
    ],
)
def test_certificates_that_cannot_be_read_are_told(
    query: str, reason: str, authority: Path
) -> None:
    """Or each connection would fail with a reason that names no file and no option."""
    url = f"rediss://:secret@127.0.0.1:1?{query.replace('FOLDER', str(authority))}"
    told = f"^KIRAZURI_REDIS_URL names a certificate or key that cannot be read: {reason}$"
    with pytest.raises(ValueError, match=told) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


def test_a_good_url_is_accepted(protected: int) -> None:
    check_redis(f"redis://:sesame@127.0.0.1:{protected}/1", SETTINGS, print)


def test_a_server_that_may_lose_jobs_is_refused(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    with running(tmp_path, port, "--maxmemory-policy", "allkeys-lru"):
        wait_until(lambda: _answers(port))
        with pytest.raises(RedisUnusableError, match=r"noeviction.*appendonly"):
            check_redis(url, SETTINGS, print)
        check_redis(url, SETTINGS.model_copy(update={"allow_volatile_redis": True}), print)
        with Redis(port=port) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory", "1")
        check_redis(url, SETTINGS, print)  # a full one drains


def test_a_server_that_hangs_is_named() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        pytest.raises(RedisUnusableError, match="does not answer: Timeout"),
    ):
        check_redis(f"redis://127.0.0.1:{deaf.getsockname()[1]}", SETTINGS, print)


def test_a_server_that_starts_together_with_the_service_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cli.service.external_redis._PATIENCE_SECONDS", 60.0)
    port = free_port()
    with ThreadPoolExecutor() as pool:
        check = pool.submit(check_redis, f"redis://127.0.0.1:{port}", SETTINGS, print)
        with running(tmp_path, port, *APPEND_ONLY):
            check.result(60)


def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port, *APPEND_ONLY):
        wait_until(lambda: _answers(port))
        with Redis(port=port) as client:
            client.mset({str(number): os.urandom(4000) for number in range(200)})
            client.bgrewriteaof()
            wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        with Redis(port=port) as client:
            client.config_set("key-load-delay", "0")

    slow = ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "4096")
    with running(tmp_path, port, *APPEND_ONLY, *slow):
        wait_until(lambda: not _is_refused(port))
        check_redis(f"redis://127.0.0.1:{port}", SETTINGS, report)
        with Redis(port=port) as client:
            assert client.dbsize() == 200
    assert lines == ["redis is loading its data; the service waits for it"]


def _is_refused(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0


@needs_a_worker
def test_up_ends_with_the_reason(protected: int, tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{protected}/0"
    run = kirazuri("up", "--port", "0", folder=tmp_path, KIRAZURI_REDIS_URL=url)
    assert run.returncode == 1
    assert (
        f"the Redis of KIRAZURI_REDIS_URL (redis://127.0.0.1:{protected}/0) refuses the user or "
        "password\n"
    ) in run.stderr
    assert run.stderr.endswith(
        "error: not started because of a fault; `kirazuri doctor` checks everything\n"
    )
    assert "secret" not in run.stderr
