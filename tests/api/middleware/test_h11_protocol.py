"""Malformed requests and too many connections, against a real API process."""

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from api.middleware.places import RESERVE
from tests.support.cases import check_all
from tests.support.ports import free_port
from tests.support.raw_http import read_all, read_raw_problem
from worker.redis_io.server import RedisServer

PROMPT = b'{"prompt": "1girl, blue hair, smile"}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HEAD = b"POST /generate?dry_run=true HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LONGEST = 60
"""Seconds until a test fails because the server does not answer."""

MAX_CONNECTIONS = 40


class Api:
    """A process of `python -m api` with few connections."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        settings = {
            "REDIS_URL": url,
            "DATA_DIR": str(folder),
            "HEAD_SECONDS": str(LONGEST),
            "MAX_HEAD_BYTES": "8192",
            "MAX_CONNECTIONS": str(MAX_CONNECTIONS),
        }
        own = {f"KIRAZURI_{name}": value for name, value in settings.items()}
        others = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's
        command = [sys.executable, "-m", "api", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=others | own)

    def is_up(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/livez", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONGEST)


@pytest.fixture(scope="module")
def api(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with Redis.from_url(shared_redis.url) as connection:
        connection.flushall()  # without keys of other tests, the API needs none
    running = Api(shared_redis.url, tmp_path_factory.mktemp("api"))
    deadline = time.monotonic() + 60
    try:
        while not running.is_up():
            assert running.process.poll() is None, running.log.read_text()
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.1)
        yield running
        # No client caused an unexpected exception.
        assert "Traceback" not in running.log.read_text()
    finally:
        running.process.terminate()
        running.process.wait(60)


def test_request_in_parts_is_served(api: Api) -> None:
    length = f"Content-Length: {len(PROMPT)}\r\nConnection: close\r\n\r\n".encode()
    with api.connect() as connection:
        for part in (HEAD[:20], HEAD[20:] + length, PROMPT[:9], PROMPT[9:]):
            connection.sendall(part)
            time.sleep(0.05)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells the limit")
def test_every_connection_can_have_a_file(api: Api) -> None:
    soft, hard = resource.prlimit(api.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


def ask(api: Api, request: bytes) -> bytes:
    """The answer to one request on a connection of its own."""
    with api.connect() as connection:
        connection.sendall(request + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return read_all(connection)


def test_connections_without_a_request_give_way(api: Api) -> None:
    with ExitStack() as stack:
        for number in range(2 * MAX_CONNECTIONS):
            idle = stack.enter_context(api.connect())
            idle.sendall(b"GET " if number % 2 else b"")
            assert ask(api, b"GET /jobs").startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_limit(api: Api) -> None:
    job = httpx2.post(f"{api.url}/generate", json={"prompt": "1girl"}, timeout=LONGEST).json()
    stream = f"GET /jobs/{job['id']}/events HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            listener = stack.enter_context(api.connect())
            listener.sendall(stream)
            assert listener.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert read_raw_problem(ask(api, b"GET /jobs")) == (503, "too_many_connections")
        assert read_raw_problem(ask(api, b"POST /generate")) == (503, "too_many_connections")
        # Connections that only wait do not take the reserve of the probes either.
        for _ in range(2 * RESERVE):
            stack.enter_context(api.connect()).sendall(b"GET /livez")
        assert ask(api, b"GET /livez").startswith(b"HTTP/1.1 200 ")
        assert b'"code":"not_ready"' in ask(api, b"GET /readyz")  # there is no worker
    deadline = time.monotonic() + LONGEST
    while not ask(api, b"GET /jobs").startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < deadline


NOT_HTTP = {
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    + b"\x00" * 80
    + b"\r\n\r\n",
    "a line feed in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX-A\n: b\r\n\r\n",
    "a null in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no chunked encoding": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: nonsense\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "chunks after identity": HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two encodings": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a tab before chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "a blank before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n",
    "chunks in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
    "a folded header": HEAD + b"X-A: b\r\n Content-Length: 5\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": HEAD + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "a hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "line feeds only": HEAD.replace(b"\r\n", b"\n") + b"\n",
    "a bare line feed": HEAD + b"X-A: b\nContent-Length: 5\r\n\r\n",
    "a bare line feed at the end": HEAD + b"X-A: b\r\n\n",
    "a bare carriage return": HEAD + b"X-A: b\rContent-Length: 5\r\n\r\n",
    **{
        f"a chunk of size {size!r}": HEAD + CHUNKED + b"\r\n" + size + b"\r\n{}\r\n0\r\n\r\n"
        for size in (
            b"xyz",
            b"",
            b"2 ",
            b"2\t",
            b"2;a\rb",
            b"-2",
            b"+2",
            b"0x2",
            b" 2",
            b"2\n",
            b"2;a\nb",
            b"f" * 30,
        )
    },
    "a chunk that is too long": HEAD + CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n",
    "a last chunk with a blank": HEAD + CHUNKED + b"\r\n0 \r\n\r\n",
    "a trailer with a bare line feed": HEAD + CHUNKED + b"\r\n0\r\nX-A: b\n\r\n",
    "an end with a bare line feed": HEAD + CHUNKED + b"\r\n0\r\n\n",
    **{
        f"two values of {name}": HEAD + b"Content-Length: 0\r\n" + lines + b"\r\n"
        for name, lines in {
            "Host": b"Host: b\r\n",
            "Authorization": b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n",
            "Origin": b"Origin: http://a\r\nOrigin: http://b\r\n",
            "Sec-Fetch-Site": b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
            "Content-Type": b"Content-Type: text/plain\r\n",
            "Idempotency-Key": b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
        }.items()
    },
    "a chunk without its end": HEAD + CHUNKED + b"\r\n2\r\n{}0\r\n\r\n",
}


def test_malformed_http(api: Api) -> None:
    """Answered once, whatever follows: another server may see two requests in the bytes."""

    def check(name: str, data: bytes) -> None:
        with api.connect() as connection:
            connection.sendall(data + b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = read_all(connection)
        assert read_raw_problem(answer) == (400, "not_http"), name
        assert len(re.findall(rb"HTTP/1.1 [0-9]", answer)) == 1

    check_all(check, NOT_HTTP.items())


def test_malformed_requests_do_not_fill_the_log(api: Api) -> None:
    def lines() -> int:
        return api.log.read_text().count("Invalid HTTP request received.")

    before, began = lines(), time.monotonic()
    for _ in range(300):
        with api.connect() as connection:
            connection.sendall(b"no HTTP\r\n\r\n")
            assert read_raw_problem(read_all(connection)) == (400, "not_http")
    assert lines() - before <= time.monotonic() - began + 2  # one a second


def test_malformed_chunks_are_refused_before_more_arrives(api: Api) -> None:
    def check(data: bytes) -> None:
        with api.connect() as connection:
            connection.sendall(HEAD + CHUNKED + b"\r\n" + data)
            assert read_raw_problem(read_all(connection)) == (400, "not_http")

    check_all(check, [(b"3\nabc",), (b"3;a\nb",), (b"2\r\n{}\r\n3\n",), (b"0\r\nX-A: b\n",)])


def test_a_header_with_the_same_value_twice_is_read(api: Api) -> None:
    lines = 2 * b"Content-Type: application/json\r\nOrigin: http://a\r\n"
    length = f"Content-Length: {len(PROMPT)}\r\nConnection: close\r\n\r\n".encode()
    with api.connect() as connection:
        connection.sendall(HEAD + lines + length + PROMPT)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_head_over_the_limit(api: Api) -> None:
    for end in (b"\r\nConnection: close\r\n\r\n", b""):
        with api.connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 9000 + end)
            status, code = read_raw_problem(read_all(connection))
        assert (status, code) == (431, "head_too_large"), end


def test_path_over_the_limit(api: Api) -> None:
    answer = httpx2.get(f"{api.url}/jobs/{'a' * 8200}", timeout=LONGEST)
    assert answer.status_code == 431
    assert answer.json()["code"] == "head_too_large"
