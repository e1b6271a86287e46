"""Clients that trickle, stall or send no HTTP, against the process that users start."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support.ports import free_port
from worker.redis_io.server import RedisServer
from worker.store.image_store import LocalImageStore

PROMPT = b'{"prompt": "1girl, blue hair, smile"}'
HEAD = b"POST /generate?dry_run=true HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
LONGEST = 30
"""Seconds after which a connection that should be closed by now makes the test fail."""

MAX_CONNECTIONS = 40


class Api:
    """`python -m api` with short patience."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        settings = {
            "REDIS_URL": url,
            "DATA_DIR": str(folder),
            "HEAD_SECONDS": "1",
            "BODY_SECONDS": "1",
            "SEND_SECONDS": "0.7",
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
    running = Api(shared_redis.url, tmp_path_factory.mktemp("api"))
    deadline = time.monotonic() + 60
    try:
        while not running.is_up():
            assert running.process.poll() is None, running.log.read_text()
            assert time.monotonic() < deadline, running.log.read_text()
            time.sleep(0.1)
        yield running
        # Whatever came in, nothing of it was an accident.
        assert "Traceback" not in running.log.read_text()
    finally:
        running.process.terminate()
        running.process.wait(20)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes; a reset is an end as well."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionResetError:
        pass
    return received


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send byte by byte for as long as the other side lets us; then what it said."""
    connection.settimeout(0.05)
    received, position = b"", 0
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        try:
            connection.sendall(data[position % len(data) :][:1])
            position += 1
            if not (part := connection.recv(65_536)):
                return received
            received += part
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return received
    raise AssertionError("the connection is still open")


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of a raw answer, which closes and is a problem."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in lines, answer
    assert b"connection: close" in lines, answer
    return int(lines[0].split()[1]), json.loads(body)["code"]


def test_a_head_that_trickles_is_cut_off(api: Api) -> None:
    with api.connect() as connection:
        answer = trickle(connection, b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200)
    assert problem(answer) == (408, "request_too_slow")


def test_a_connection_that_says_nothing_is_closed(api: Api) -> None:
    with api.connect() as connection:
        assert problem(rest(connection)) == (408, "request_too_slow")


@pytest.mark.parametrize(
    "length", [b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_a_body_that_trickles_is_cut_off(api: Api, length: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(HEAD + length)
        answer = trickle(connection, b"1\r\na\r\n" if b"chunked" in length else b" ")
    assert problem(answer) == (408, "request_too_slow")


def test_a_body_that_trickles_after_its_refusal_is_cut_off(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        answer = trickle(connection, b" ")
    assert answer.startswith(b"HTTP/1.1 413 "), answer


def test_a_second_request_that_trickles_is_cut_off(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        answer = trickle(connection, b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 200)
    assert problem(answer) == (408, "request_too_slow")


def test_blank_lines_do_not_keep_a_connection_open(api: Api) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        trickle(connection, b"\r\n")


def test_a_client_that_does_not_read_is_cut_off(api: Api) -> None:
    name = LocalImageStore(api.folder / "images").put(os.urandom(12_000_000), "png")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(LONGEST)
        connection.connect(("127.0.0.1", api.port))
        connection.sendall(f"GET /images/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        deadline = time.monotonic() + LONGEST
        while "awaited=reading" not in api.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(rest(connection)) < 12_000_000


def test_others_are_served_while_many_trickle(api: Api) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(api.connect()) for _ in range(MAX_CONNECTIONS - 5)]
        for number, connection in enumerate(slow):
            body = HEAD + b"Content-Length: 5000\r\n\r\n"
            connection.sendall(body if number % 2 else b"GET / HT")
        url, media_type = f"{api.url}/generate?dry_run=true", {"content-type": "application/json"}
        answer = httpx2.post(url, content=PROMPT, headers=media_type, timeout=LONGEST)
        assert answer.status_code == 200, answer.text
        for connection in slow:
            assert problem(rest(connection)) == (408, "request_too_slow")


def test_a_slow_but_honest_request_is_served(api: Api) -> None:
    with api.connect() as connection:
        length = f"Content-Length: {len(PROMPT)}\r\nConnection: close\r\n\r\n".encode()
        for part in (HEAD[:20], HEAD[20:] + length, PROMPT[:9], PROMPT[9:]):
            connection.sendall(part)
            time.sleep(0.05)
        assert rest(connection).startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_limit_are_told_so(api: Api) -> None:
    deadline, answer = time.monotonic() + LONGEST, b""
    while not answer.startswith(b"HTTP/1.1 503"):  # a slow machine may lose the first meanwhile
        assert time.monotonic() < deadline, answer
        with ExitStack() as stack:
            for _ in range(MAX_CONNECTIONS):
                stack.enter_context(api.connect()).sendall(b"GET ")
            last = stack.enter_context(api.connect())
            last.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = rest(last)
    assert problem(answer) == (503, "too_many_connections")
    while not api.is_up():
        assert time.monotonic() < deadline


NOT_HTTP = {
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    + b"\x00" * 80
    + b"\r\n\r\n",
    "a line feed in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX-A\n: b\r\n\r\n",
    "a null in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: nonsense\r\n\r\n",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP.keys())
def test_what_is_no_http_is_a_problem(api: Api, data: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(data)
        status, code = problem(rest(connection))
    assert (status, code) in {(400, "not_http"), (501, "not_http")}


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_head_over_the_limit_is_refused(api: Api, *, is_whole: bool) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 9000)
        if is_whole:
            connection.sendall(b"\r\nConnection: close\r\n\r\n")
        status, code = problem(rest(connection))
    assert (status, code) == (431, "head_too_large")


def test_a_path_over_the_limit_is_refused(api: Api) -> None:
    answer = httpx2.get(f"{api.url}/jobs/{'a' * 8200}")
    assert answer.status_code == 431
    assert answer.json()["code"] == "head_too_large"


def test_a_stray_byte_after_a_refused_body_is_no_accident(api: Api) -> None:
    """uvicorn itself would answer twice here and fail."""
    with api.connect() as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(b"1\r\na\r\n")
        first = connection.recv(65_536)
        connection.sendall(b"zzz\r\n")
        assert (first + rest(connection)).startswith(b"HTTP/1.1 4")
