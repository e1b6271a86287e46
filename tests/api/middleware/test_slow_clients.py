"""Clients that send or read too slowly, against a server that waits half a second for them."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.support.api_server import ApiServer
from tests.support.raw_http import read_all, read_raw_problem
from tests.support.waiting import wait_until
from worker.settings import Settings
from worker.store.image_store import LocalImageStore
from worker.store.open_store import IMAGES_FOLDER

LONGEST = 60
"""Seconds until a test fails because the server does not close a connection."""

MAX_CONNECTIONS = 40
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /generate?dry_run=true HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
PROMPT = b'{"prompt": "1girl, blue hair, smile"}'


@pytest.fixture(scope="module")
def hasty(settings: Settings) -> Iterator[ApiServer]:
    seconds = dict.fromkeys(("head_seconds", "body_seconds", "send_seconds"), 0.5)
    own = settings.model_copy(update={**seconds, "max_connections": MAX_CONNECTIONS})
    with ApiServer(own) as running:
        yield running


@pytest.fixture(autouse=True)
def no_exceptions(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No client causes an unexpected exception."""
    caplog.set_level("INFO")
    yield
    assert [record for record in caplog.records if record.exc_info] == []


def connect(server: ApiServer, *, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(LONGEST)
    connection.connect(("127.0.0.1", urlsplit(server.url).port))
    return connection


def begin(
    server: ApiServer, request: bytes, *, receive_bytes: int | None = None
) -> tuple[socket.socket, bytes]:
    """A connection with a request that the server got in time, and the first of its answer."""
    deadline = time.monotonic() + LONGEST
    while True:
        connection = connect(server, receive_bytes=receive_bytes)
        connection.sendall(request)
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 408 "):  # as on a busy machine
            return connection, answer
        connection.close()
        assert time.monotonic() < deadline


def trickle(connection: socket.socket, data: bytes) -> bytes:
    """Send byte by byte until the server closes the connection; returns its response."""
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
            return received + read_all(connection)
    raise AssertionError("the connection is still open")


def assert_too_slow(answer: bytes) -> None:
    assert read_raw_problem(answer) == (408, "request_too_slow")


def test_slow_head_times_out(hasty: ApiServer) -> None:
    with connect(hasty) as connection:
        assert_too_slow(trickle(connection, GET + b"X-A: b\r\n" * 200))


def test_silent_connection_times_out(hasty: ApiServer) -> None:
    with connect(hasty) as connection:
        assert_too_slow(read_all(connection))


def test_slow_body_times_out(hasty: ApiServer) -> None:
    for length, data in (
        (b"Content-Length: 100000\r\n\r\n", b" "),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ):
        with connect(hasty) as connection:
            connection.sendall(POST + length)
            assert_too_slow(trickle(connection, data))


def test_slow_body_after_its_refusal_is_cut_off(hasty: ApiServer) -> None:
    connection, answer = begin(hasty, POST + b"Content-Length: 99999999\r\n\r\n")
    with connection:
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        trickle(connection, b" ")


def test_slow_second_request_times_out(hasty: ApiServer) -> None:
    connection, answer = begin(hasty, GET + b"\r\n")
    with connection:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert_too_slow(trickle(connection, GET + b"X-A: b\r\n" * 200))


def test_blank_lines_do_not_keep_a_connection_open(hasty: ApiServer) -> None:
    connection, answer = begin(hasty, GET + b"\r\n")
    with connection:
        assert answer.startswith(b"HTTP/1.1 200 ")
        trickle(connection, b"\r\n")


def test_client_that_does_not_read_is_cut_off(
    hasty: ApiServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    name = LocalImageStore(settings.data_dir / IMAGES_FOLDER).put(os.urandom(12_000_000), "png")
    request = f"GET /images/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    connection, answer = begin(hasty, request, receive_bytes=4096)
    with connection:
        assert answer.startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: "awaited=reading" in caplog.text)
        assert len(read_all(connection)) < 12_000_000 - len(answer)


def test_serves_others_while_many_are_slow(hasty: ApiServer) -> None:
    with ExitStack() as stack:
        slow = []
        for number in range(MAX_CONNECTIONS - 5):
            slow.append(stack.enter_context(connect(hasty)))
            body = POST + b"Content-Length: 5000\r\n\r\n"
            slow[-1].sendall(body if number % 2 else b"GET / HT")
        length = f"Content-Length: {len(PROMPT)}\r\n\r\n".encode()
        connection, answer = begin(hasty, POST + length + PROMPT)
        stack.enter_context(connection)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        for connection in slow:
            assert_too_slow(read_all(connection))


def test_extra_bytes_after_a_refused_body(hasty: ApiServer) -> None:
    """uvicorn alone would answer twice and raise an exception."""
    with connect(hasty) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(b"1\r\na\r\n")
        answer = connection.recv(65_536)
        connection.sendall(b"zzz\r\n")
        answer += read_all(connection)
    assert_too_slow(answer)
    assert answer.count(b"HTTP/1.1 ") == 1
