"""Bodies that cost more to parse than to send, and bodies that nobody needs any more."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import httpx2
import pytest
from redis import Redis

from api.middleware.h11_protocol import LimitedH11Protocol
from api.middleware.lingering import LINGER_BYTES
from api.middleware.strict_h11 import MAX_SMALL_REST, StrictConnection
from tests.support.api_keys import LISTENS_TO_ALL, bearer, make_key
from tests.support.api_server import ApiServer
from tests.support.cases import check_all
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.settings import Settings

TINY_CHUNKS = b"1\r\n \r\n" * 10_000
CHUNKED = "Transfer-Encoding: chunked\r\n"
IN_FLIGHT = 16_000_000
"""Bytes that may wait in the buffers of the two sockets."""

ENDLESS = 200_000_000

MOST_EVENTS = 33
"""Events of h11 in one slice; each takes some 40 microseconds."""


@dataclass
class Work:
    """Events that connections parsed without a break, in order."""

    slices: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.slices)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()
    handle_events = LimitedH11Protocol.handle_events
    next_event = StrictConnection.next_event

    def count_slice(protocol: LimitedH11Protocol) -> None:
        counted.slices.append(0)
        handle_events(protocol)

    def count_event(connection: StrictConnection) -> object:
        counted.slices[-1] += 1
        return next_event(connection)

    monkeypatch.setattr(LimitedH11Protocol, "handle_events", count_slice)
    monkeypatch.setattr(StrictConnection, "next_event", count_event)
    return counted


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[ApiServer]:
    """A server with keys and allowed hosts."""
    named = {"listen": LISTENS_TO_ALL, "allowed_hosts": "127.0.0.1"}
    with ApiServer(settings.model_copy(update=named)) as running:
        yield running


def send_without_end(
    server: ApiServer, head: str, part: bytes, *, most: int = ENDLESS
) -> tuple[bytes, int]:
    """Send a head and then `part` again and again; the answer, and how many bytes were taken."""
    port, sent = int(server.url.rpartition(":")[2]), 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"{head}\r\n".encode())
        with suppress(ConnectionError):
            while sent < most:
                connection.sendall(part)
                sent += len(part)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while received := connection.recv(65_536):
                answer += received
    return answer, sent


REFUSED = {
    "no key": ("POST /verify", "127.0.0.1", b"401"),
    "no key, JSON": ("POST /generate", "127.0.0.1", b"401"),
    "no key, another dialect": ("POST /v1/images/edits", "127.0.0.1", b"401"),
    "a probe": ("GET /livez", "127.0.0.1", b"200"),
    "another method": ("POST /livez", "127.0.0.1", b"405"),
    "no such path": ("PUT /nothing", "127.0.0.1", b"401"),
    "a wrong host": ("GET /jobs", "evil.example", b"421"),
}
BODIES = {
    "tiny chunks": (CHUNKED, TINY_CHUNKS),
    "extensions": (CHUNKED, b"1;" + b"a" * 20_000 + b"\r\n \r\n"),
    "one chunk": (CHUNKED + "\r\nfffffff", b"\r\n" * 50_000),
    "a length": ("Content-Length: 1000000000\r\n", b" " * 100_000),
}


def test_a_refused_body_is_neither_parsed_nor_read_to_its_end(
    guarded: ApiServer, work: Work
) -> None:
    def check(case: str, body: str) -> None:
        operation, host, status = REFUSED[case]
        headers, part = BODIES[body]
        work.slices.clear()
        head = f"{operation} HTTP/1.1\r\nHost: {host}\r\n{headers}"
        answer, sent = send_without_end(guarded, head, part)
        assert sent < LINGER_BYTES + IN_FLIGHT
        assert work.total <= 2 * MOST_EVENTS
        if answer:  # a client that goes on sending may lose it
            assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
            assert b"\r\nconnection: close\r\n" in answer.lower()

    check_all(check, ((case, body) for case in REFUSED for body in BODIES))


@pytest.fixture
def key(guarded: ApiServer, redis_url: str) -> str:
    """A key of the guarded server."""
    secret, made = make_key("anna")
    with Redis.from_url(redis_url) as connection:
        add_key(connection, made)
    wait_until(
        lambda: httpx2.get(f"{guarded.url}/jobs", headers=bearer(secret), timeout=60).is_success
    )
    return secret


def test_framing_counts_with_a_key_too(guarded: ApiServer, key: str, work: Work) -> None:
    def check(path: str, media_type: str, body: str) -> None:
        headers, part = BODIES[body]
        work.slices.clear()
        ((name, value),) = bearer(key).items()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{name}: {value}\r\n"
        head += f"Content-Type: {media_type}; boundary=x\r\n{headers}"
        answer, _ = send_without_end(guarded, head, part, most=600_000)
        assert work.total < 5_000
        assert max(work.slices) <= MOST_EVENTS
        assert not answer or b"body_too_large" in answer, answer[:300]

    paths = (
        ("/generate", "application/json"),
        ("/verify", "image/png"),
        ("/sdapi/v1/png-info", "application/json"),
        ("/v1/images/generations", "application/json"),
    )
    check_all(check, ((*path, body) for path in paths for body in ("tiny chunks", "extensions")))


def test_the_answer_to_a_long_refused_body_arrives(guarded: ApiServer) -> None:
    body = b"x" * 10_000_000
    answer = httpx2.post(f"{guarded.url}/verify", content=body, timeout=60)
    assert answer.status_code == 401
    assert answer.headers["connection"] == "close"


def test_a_client_that_finishes_its_refused_body_sees_no_reset(guarded: ApiServer) -> None:
    """A reset could destroy the answer before the client reads it."""
    port = int(guarded.url.rpartition(":")[2])
    head = f"POST /verify HTTP/1.1\r\nHost: 127.0.0.1\r\n{CHUNKED}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 401 ")
        for _ in range(8):
            connection.sendall(b"c350\r\n" + b" " * 50_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert b"unauthorized" in reader.read()


def test_a_short_refused_body_keeps_the_connection(guarded: ApiServer) -> None:
    port = int(guarded.url.rpartition(":")[2])
    head = f"POST /verify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MAX_SMALL_REST}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        reader = connection.makefile("rb")
        for _ in range(3):
            connection.sendall(head.encode())
            assert reader.readline().startswith(b"HTTP/1.1 401 ")
            lines = list(iter(reader.readline, b"\r\n"))
            assert b"connection: close\r\n" not in lines
            (length,) = [int(x.split()[1]) for x in lines if x.startswith(b"content-length")]
            reader.read(length)
            connection.sendall(b" " * MAX_SMALL_REST)


def test_a_body_that_was_only_announced_ends_the_connection(guarded: ApiServer) -> None:
    """The client may leave it out after a refusal, so the next bytes could be anything."""
    port = int(guarded.url.rpartition(":")[2])
    head = b"POST /verify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_the_rest_of_a_short_refused_body_must_come_soon(guarded: ApiServer) -> None:
    """Long before `body_seconds`, although every byte stops the timer of idle connections."""
    port = int(guarded.url.rpartition(":")[2])
    taken = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST /verify HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        with suppress(ConnectionError):
            while taken < 100:
                connection.sendall(b" ")
                taken += 1
                time.sleep(0.3)
    assert taken < 100
