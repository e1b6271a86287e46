"""Calls that are repeated because they ended without their images find their jobs."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from redis import Redis

from tests.support.api_process import ApiProcess
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.mcp_clients import ACCEPT, tool_call
from tests.support.pending_call import PendingCall
from tests.support.waiting import wait_until
from worker.queue.layout.redis_keys import COUNTERS, calls_key, waiter_key
from worker.settings import Settings

FILE = b"\x89PNG not really"
PROMPT = "1girl, blue hair, smile, hair bow"


class Dialect(NamedTuple):
    path: str
    body: dict[str, Any]
    unserved: int = 504


GENERATE = Dialect("/v1/images/generations", {"prompt": PROMPT})
CHAT = Dialect("/v1/chat/completions", {"messages": [{"role": "user", "content": PROMPT}]})
TXT2IMG = Dialect("/sdapi/v1/txt2img", {"prompt": PROMPT})
NATIVE = Dialect("/generate", {"prompt": PROMPT})
TIMED = [GENERATE, CHAT, TXT2IMG]
ALL = [*TIMED, NATIVE]
LONG = {"prefer": "wait=60"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sync_wait_seconds": 0.2, "max_wait_seconds": 60})


@pytest.fixture
def job_count(worker: ManualWorker) -> Callable[[], int]:
    """Counts the jobs made so far."""
    return lambda: int(worker.redis.hget(COUNTERS, "accepted") or 0)


def job_of(answer: httpx2.Response, dialect: Dialect) -> str:
    assert answer.status_code == dialect.unserved, answer.text
    return answer.headers["x-job-id"]


def post(client: httpx2.Client, dialect: Dialect, **headers: str) -> str:
    """The id of the job of a call that ends without its images."""
    return job_of(client.post(dialect.path, json=dialect.body, headers=headers), dialect)


def disconnected(server: ApiServer, dialect: Dialect, worker: ManualWorker, **headers: str) -> str:
    """The id of the job of a call whose connection is cut."""
    known = set(worker.queued_ids())
    call = PendingCall(server.url, dialect.path, dialect.body, LONG | headers)
    wait_until(lambda: set(worker.queued_ids()) - known)
    (job_id,) = set(worker.queued_ids()) - known
    call.disconnect()
    wait_until(lambda: is_left(worker, job_id))
    return job_id


def is_left(worker: ManualWorker, job_id: str) -> bool:
    """Whether the end of a call without its images is on record."""
    return any(
        worker.redis.hget(key, job_id) == b"" for key in worker.redis.scan_iter(calls_key("*", "*"))
    )


def finish(worker: ManualWorker, job_id: str) -> None:
    worker.claim(job_id)
    worker.finish(job_id, FILE)


@pytest.mark.parametrize("dialect", TIMED)
def test_a_call_over_its_time_is_continued_by_the_same_call(
    client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int], dialect: Dialect
) -> None:
    ids = [post(client, dialect)]
    for headers in (
        {"user-agent": "another", "x-request-id": "other", "traceparent": "nonsense"},
        {"x-stainless-retry-count": "0"},
        {"x-stainless-retry-count": "1", "authorization": "Bearer any", "accept": "*/*"},
        {"prefer": "wait=0", "cancel-after": "90s"},
    ):
        ids.append(post(client, dialect, **headers))
    assert len(set(ids)) == job_count() == 1
    finish(worker, ids[0])
    answer = client.post(dialect.path, json=dialect.body)
    assert answer.status_code == 200
    assert answer.headers["x-job-id"] == ids[0]
    assert post(client, dialect) != ids[0], "its images were handed over"
    assert job_count() == 2


@pytest.mark.parametrize("dialect", ALL)
def test_a_call_whose_client_left_is_continued_by_the_same_call(
    server: ApiServer,
    client: httpx2.Client,
    worker: ManualWorker,
    job_count: Callable[[], int],
    dialect: Dialect,
) -> None:
    job_id = disconnected(server, dialect, worker)
    finish(worker, job_id)
    answer = client.post(dialect.path, json=dialect.body, headers=LONG)
    assert answer.status_code == 200
    assert job_id in answer.headers["location"]
    assert job_count() == 1
    later = client.post(dialect.path, json=dialect.body, headers={"prefer": "wait=0"})
    assert job_id not in later.headers["location"]
    assert job_count() == 2


def test_a_tool_call_whose_client_left_is_continued_by_the_same_call(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    call = Dialect("/mcp", tool_call("generate_image", prompt=PROMPT))
    job_id = disconnected(server, call, worker, **ACCEPT)
    finish(worker, job_id)
    headers = LONG | ACCEPT
    assert job_id in client.post(call.path, json=call.body, headers=headers).text
    assert job_count() == 1
    for number in (2, 3):  # an answer that names its job hands it over
        answer = client.post(call.path, json=call.body, headers=headers | {"prefer": "wait=0"})
        assert job_id not in answer.text
        assert job_count() == number


def test_a_replay_whose_client_left_is_continued_by_the_same_call(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    original = client.post("/generate", json=NATIVE.body).json()["id"]
    finish(worker, original)
    again = Dialect(f"/jobs/{original}/replay", {})
    job_id = disconnected(server, again, worker)
    finish(worker, job_id)
    answer = client.post(again.path, headers=LONG)
    assert (answer.status_code, answer.json()["id"]) == (200, job_id)
    assert job_count() == 2
    assert client.post(again.path).json()["id"] != job_id
    assert job_count() == 3


def test_a_stream_whose_client_left_is_continued_by_the_same_call(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    body = GENERATE.body | {"stream": True}
    with client.stream("POST", GENERATE.path, json=body) as answer:
        job_id = answer.headers["x-job-id"]
    wait_until(lambda: is_left(worker, job_id))
    finish(worker, job_id)
    for expected in (True, False):
        with client.stream("POST", GENERATE.path, json=body) as answer:
            assert (answer.headers["x-job-id"] == job_id) is expected
            if expected:
                assert b"completed" in answer.read()
        wait_until(lambda: not is_left(worker, job_id))
    assert job_count() == 2


def test_a_202_hands_the_job_over(client: httpx2.Client, job_count: Callable[[], int]) -> None:
    for _ in range(2):
        answer = client.post("/generate", json=NATIVE.body, headers={"prefer": "wait=0"})
        assert answer.status_code == 202
    assert job_count() == 2


def test_another_process_finds_the_job(
    settings: Settings, client: httpx2.Client, job_count: Callable[[], int]
) -> None:
    with ApiServer(settings) as other, httpx2.Client(base_url=other.url, timeout=60) as elsewhere:
        ids = {post(where, GENERATE) for where in (client, elsewhere, client)}
    assert len(ids) == job_count() == 1


def test_a_job_of_a_process_that_stops_is_found(
    settings: Settings, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    with ApiServer(settings) as other:
        call = PendingCall(other.url, GENERATE.path, GENERATE.body, LONG)
        wait_until(worker.queued_ids)
    call.disconnect()
    assert post(client, GENERATE) == worker.queued_ids()[0]
    assert job_count() == 1


def test_a_job_of_a_process_that_was_killed_is_found(
    settings: Settings,
    client: httpx2.Client,
    worker: ManualWorker,
    job_count: Callable[[], int],
    tmp_path: Path,
) -> None:
    api = ApiProcess(settings, tmp_path / "log")
    try:
        call = PendingCall(api.url, GENERATE.path, GENERATE.body, LONG)
        wait_until(worker.queued_ids)
        api.process.kill()
        api.process.wait(60)
        call.disconnect()
        held: Any = worker.redis.hvals(next(worker.redis.scan_iter(calls_key("*", "*"))))
        process = waiter_key(str(held[0], "utf-8").split()[0])
        wait_until(lambda: not worker.redis.exists(process))
        assert post(client, GENERATE) == worker.queued_ids()[0]
        assert job_count() == 1
    finally:
        api.stop()


def test_simultaneous_calls_have_a_job_each(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    calls = []
    for number in range(3):
        calls.append(PendingCall(server.url, GENERATE.path, GENERATE.body, LONG))
        wait_until(lambda: job_count() == number + 1)  # noqa: B023 - called at once
    ids = worker.queued_ids()
    for call in calls:
        call.disconnect()
    wait_until(lambda: all(is_left(worker, job_id) for job_id in ids))
    assert post(client, GENERATE) == ids[0]
    assert job_count() == 3


def test_other_calls_do_not_find_it(client: httpx2.Client, job_count: Callable[[], int]) -> None:
    ids = {post(client, GENERATE)}
    ids.add(post(client, GENERATE._replace(body={**GENERATE.body, "n": 2})))
    ids.add(post(client, TXT2IMG))
    transport = httpx2.HTTPTransport(local_address="127.0.0.2")
    with httpx2.Client(base_url=client.base_url, transport=transport, timeout=60) as elsewhere:
        ids.add(post(elsewhere, GENERATE))
    assert len(ids) == job_count() == 4


def test_an_idempotency_key_says_what_belongs_together(
    client: httpx2.Client, job_count: Callable[[], int]
) -> None:
    plain = post(client, GENERATE)
    own = post(client, GENERATE, **{"idempotency-key": "a"})
    assert own != plain
    assert post(client, GENERATE, **{"idempotency-key": "a"}) == own
    assert post(client, GENERATE) == plain
    assert job_count() == 2


def test_failed_and_cancelled_jobs_are_not_found(
    client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    client.delete(f"/jobs/{post(client, GENERATE)}")
    failed = post(client, GENERATE)
    worker.claim(failed)
    worker.end(failed, "failed")
    assert post(client, GENERATE) != failed
    assert job_count() == 3


def test_an_address_is_the_same_client_for_ten_minutes(
    client: httpx2.Client, redis_client: "Redis"
) -> None:
    first = post(client, GENERATE)
    (key,) = redis_client.keys(calls_key("*", "*"))
    assert b"127.0.0.1" not in key
    assert 580 < redis_client.ttl(key) <= 600
    redis_client.delete(key)
    assert post(client, GENERATE) != first


def test_a_hidden_address_is_no_client(
    client: httpx2.Client, redis_client: "Redis", job_count: Callable[[], int]
) -> None:
    headers = {"via": "1.1 proxy"}
    with httpx2.Client(base_url=client.base_url, timeout=60) as behind:
        for count in (1, 2):
            behind.post("/sdapi/v1/txt2img", json=TXT2IMG.body, headers=headers)
            assert job_count() in (0, count)
    assert not redis_client.keys(calls_key("*", "*"))


@contextmanager
def slow_reader(server: ApiServer, dialect: Dialect) -> Iterator[socket.socket]:
    """A call whose client takes little of the response."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        body = json.dumps(dialect.body).encode()
        head = (
            f"POST {dialect.path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        yield connection


@pytest.mark.parametrize("dialect", TIMED)
def test_a_response_that_is_cut_off_was_not_handed_over(
    server: ApiServer,
    client: httpx2.Client,
    worker: ManualWorker,
    job_count: Callable[[], int],
    dialect: Dialect,
) -> None:
    with slow_reader(server, dialect) as connection:
        wait_until(worker.queued_ids)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, os.urandom(12_000_000))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: is_left(worker, job_id))
    answer = client.post(dialect.path, json=dialect.body)
    assert (answer.status_code, answer.headers["x-job-id"]) == (200, job_id)
    assert len(answer.content) > 12_000_000
    assert job_count() == 1
