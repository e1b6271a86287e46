"""One key cannot take all connections; probes answer even if all are taken."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from redis import Redis

from tests.support.api_keys import BODY, LISTENS_TO_ALL, bearer, make_key
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.settings import Settings

CONNECTIONS = 10
MOST = 4


@pytest.fixture(scope="module")
def small(settings: Settings) -> Iterator[ApiServer]:
    """A server with few connections."""
    few = {"listen": LISTENS_TO_ALL, "max_connections": CONNECTIONS, "max_wait_seconds": 600}
    with ApiServer(settings.model_copy(update=few)) as running:
        yield running


@pytest.fixture
def secrets(small: ApiServer, redis_url: str) -> list[str]:
    """The secrets of three keys that the server knows."""
    made = [make_key(name) for name in ("anna", "ben", "cleo")]
    with Redis.from_url(redis_url) as connection:
        for _, key in made:
            add_key(connection, key)
    known = [secret for secret, _ in made]
    wait_until(lambda: all(get(small, "/jobs", secret).status_code == 200 for secret in known))
    return known


def get(server: ApiServer, path: str, secret: str) -> httpx2.Response:
    return httpx2.get(f"{server.url}{path}", headers=bearer(secret), timeout=60)


def listen(server: ApiServer, path: str, secret: str = "") -> socket.socket:
    """A connection that has begun to receive a job's events."""
    port = int(server.url.rpartition(":")[2])
    key = f"Authorization: Bearer {secret}\r\n" if secret else ""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{key}\r\n".encode())
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    return connection


def submit(server: ApiServer, secret: str) -> str:
    """The id of a new job, which waits for ever."""
    answer = httpx2.post(f"{server.url}/generate", json=BODY, headers=bearer(secret), timeout=60)
    job_id: str = answer.json()["id"]
    return job_id


def assert_full(answer: httpx2.Response) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "too_many_requests"
    assert answer.headers["retry-after"] == "1"


def test_streams_of_one_key_leave_connections_to_others(
    small: ApiServer, secrets: list[str]
) -> None:
    with ExitStack() as stack:
        for secret in secrets[:2]:
            events = f"/jobs/{submit(small, secret)}/events"
            for _ in range(MOST):
                stack.enter_context(listen(small, events, secret))
            assert_full(get(small, events, secret))
            assert_full(get(small, "/capabilities", secret))
        assert get(small, "/jobs", secrets[2]).status_code == 200
        assert submit(small, secrets[2])
    small.wait_for_requests(0)
    assert get(small, "/jobs", secrets[0]).status_code == 200


def test_signed_links_count_against_their_key(small: ApiServer, secrets: list[str]) -> None:
    job_id = submit(small, secrets[0])
    url = f"{small.url}/jobs/{job_id}/links"
    link = httpx2.post(url, headers=bearer(secrets[0]), timeout=60).json()["events"]
    path = link[link.index("/jobs/") :]
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(listen(small, path))
        assert_full(httpx2.get(f"{small.url}{path}", timeout=60))
        assert_full(get(small, "/jobs", secrets[0]))
    small.wait_for_requests(0)


def test_waiting_calls_count(small: ApiServer, secrets: list[str]) -> None:
    body = json.dumps(BODY).encode()
    head = (
        "POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Prefer: wait=600\r\nAuthorization: Bearer {secrets[0]}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    port = int(small.url.rpartition(":")[2])
    with ExitStack() as stack:
        for number in range(MOST):
            waiting = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            waiting.sendall(head.encode() + body)
            small.wait_for_requests(number + 1)
        assert_full(get(small, "/jobs", secrets[0]))
        assert get(small, "/jobs", secrets[1]).status_code == 200
    small.wait_for_requests(0)


def test_the_setting_replaces_the_share(settings: Settings, redis_url: str) -> None:
    secret, key = make_key("anna")
    with Redis.from_url(redis_url) as connection:
        add_key(connection, key)
    changes = {"listen": LISTENS_TO_ALL, "max_requests_per_key": 1}
    with ApiServer(settings.model_copy(update=changes)) as running:
        events = f"/jobs/{submit(running, secret)}/events"
        with listen(running, events, secret):
            assert_full(get(running, "/jobs", secret))
        running.wait_for_requests(0)
        assert get(running, "/jobs", secret).status_code == 200
