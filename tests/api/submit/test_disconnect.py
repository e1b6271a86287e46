"""Deadlines of jobs, and clients that disconnect while their jobs go on."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import urlsplit

import httpx2
import pytest

from api.submit.context import parse_duration
from tests.support.api_calls import PROMPT, parse_events, read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.errors import QueueUnavailable
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.job_records import JobRecords
from worker.queue.layout import redis_keys
from worker.settings import Settings

BODY = {"prompt": PROMPT}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_wait_seconds": 60})


def submit_with_deadline(client: httpx2.Client, cancel_after: str) -> str:
    answer = client.post("/generate", json=BODY, headers={"cancel-after": cancel_after})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def pass_deadline(worker: ManualWorker, job_id: str) -> None:
    """Move the deadline of a job a minute into the past."""
    past = time.time() - 60
    assert worker.redis.hset(redis_keys.job_key(job_id), "deadline", past) == 0
    assert worker.redis.zadd(redis_keys.DEADLINES, {job_id: past}) == 0


def status_of(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


def test_durations() -> None:
    read = {text: parse_duration(text) for text in ("90s", "90", "5m", "1h30m", "1h1m1s", "24h")}
    assert read == {
        "90s": 90, "90": 90, "5m": 300, "1h30m": 5400, "1h1m1s": 3661, "24h": 86_400,
    }  # fmt: skip


def test_other_durations_are_refused(client: httpx2.Client) -> None:
    for text in ("", "0", "0s", "-1s", "soon", "25h", "1.5m", "5m1h", "9" * 40):
        with pytest.raises(ValueError, match="from 1s to 24h"):
            parse_duration(text)
        answer = client.post("/generate", json=BODY, headers={"cancel-after": text})
        assert answer.status_code == 422, text
        assert "cancel-after" in read_problem(answer)["errors"][0]["detail"]


def test_a_job_shows_its_deadline(client: httpx2.Client) -> None:
    job = client.get(f"/jobs/{submit_with_deadline(client, '90s')}").json()
    created, deadline = (datetime.fromisoformat(job[name]) for name in ("created_at", "cancel_at"))
    assert (deadline - created).total_seconds() == pytest.approx(90, abs=0.01)
    assert client.get(f"/jobs/{submit_job(client)}").json()["cancel_at"] is None


def test_a_running_job_is_cancelled_after_its_deadline(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_with_deadline(client, "1h")
    worker.claim(job_id)
    assert worker.step(job_id, 1, 20) == "ok"
    pass_deadline(worker, job_id)
    assert worker.step(job_id, 2, 20) == "cancel"
    worker.end(job_id, "cancelled")
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert events[-1]["event"] == "cancelled"
    assert events[-1]["data"] == {"reason": "deadline"}


def test_a_job_that_ended_has_no_deadline(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_with_deadline(client, "1h")
    worker.claim(job_id)
    worker.finish(job_id, b"picture")
    worker.redis.hset(redis_keys.job_key(job_id), "deadline", time.time() - 1)
    assert worker.redis.zcard(redis_keys.DEADLINES) == 0
    assert worker.end_overdue() == []
    assert status_of(client, job_id) == "succeeded"


def test_any_worker_ends_a_queued_job_after_its_deadline(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id, other = submit_with_deadline(client, "1h"), submit_job(client)
    assert worker.end_overdue() == []
    pass_deadline(worker, job_id)
    assert worker.end_overdue() == [job_id]
    assert status_of(client, job_id) == "cancelled"
    assert worker.queued_ids() == [other]
    assert worker.end_overdue() == []
    assert worker.redis.zcard(redis_keys.DEADLINES) == 0


def test_without_workers_a_read_ends_a_job_after_its_deadline(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_with_deadline(client, "1h")
    pass_deadline(worker, job_id)
    assert status_of(client, job_id) == "cancelled"


def test_the_event_tells_a_clients_cancel_from_a_deadline(client: httpx2.Client) -> None:
    job_id = submit_with_deadline(client, "1h")
    client.delete(f"/jobs/{job_id}")
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert events[-1]["data"] == {"reason": "client"}


@contextmanager
def waiting_call(server: ApiServer, worker: ManualWorker, query: str) -> Iterator[str]:
    """A synchronous call whose client disconnects on exit; yields the id of its job."""
    known = set(worker.queued_ids())
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        body = json.dumps({"prompt": "1girl", "seed": len(known)}).encode()
        connection.sendall(
            f"POST /generate{query} HTTP/1.1\r\nHost: {address.netloc}\r\nPrefer: wait=60\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wait_until(lambda: set(worker.queued_ids()) - known)
        (job_id,) = set(worker.queued_ids()) - known
        yield job_id


def test_a_disconnect_during_a_call_cancels_the_job_only_on_request(
    client: httpx2.Client, server: ApiServer, worker: ManualWorker
) -> None:
    with waiting_call(server, worker, "") as kept:
        pass
    # The server notices a disconnect within one poll, so that of `kept` before this one.
    with waiting_call(server, worker, "?cancel_on_disconnect=true") as cancelled:
        pass
    wait_until(lambda: status_of(client, cancelled) == "cancelled")
    assert status_of(client, kept) == "queued"
    assert worker.queued_ids() == [kept]


def test_a_disconnect_ends_the_waiting_at_once(
    client: httpx2.Client,
    server: ApiServer,
    worker: ManualWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    wait = JobQueue.wait

    async def note(queue: JobQueue, job_id: str, seconds: float) -> Job:
        try:
            return await wait(queue, job_id, seconds)
        except asyncio.CancelledError:
            ended.append(job_id)
            raise

    monkeypatch.setattr(JobQueue, "wait", note)
    with waiting_call(server, worker, "") as job_id:
        assert not ended
    wait_until(lambda: ended == [job_id])
    assert status_of(client, job_id) == "queued"


def test_an_accepted_job_is_answered_even_if_redis_goes_away(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise QueueUnavailable("Redis does not answer")

    client.post("/generate?dry_run=true", json=BODY)  # the throughput has been read
    monkeypatch.setattr(JobRecords, "read", fail)
    for headers in ({}, {"Prefer": "wait=60"}):
        answer = client.post("/generate", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"


def test_a_client_that_stays_connected_gets_the_answer(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    def work() -> None:
        wait_until(worker.queued_ids)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, b"picture")

    working = threading.Thread(target=work)
    working.start()
    answer = client.post(
        "/generate?cancel_on_disconnect=true", json=BODY, headers={"prefer": "wait=60"}, timeout=90
    )
    working.join()
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


def test_a_disconnect_from_a_stream_cancels_the_job_only_on_request(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    kept, cancelled = submit_job(client), submit_job(client)
    for job_id, query in ((kept, ""), (cancelled, "?cancel_on_disconnect=true")):
        worker.claim(job_id)
        with client.stream("GET", f"/jobs/{job_id}/events{query}") as answer:
            assert "retry" in next(answer.iter_lines())
    wait_until(lambda: worker.step(cancelled, 1, 20) == "cancel")
    worker.end(cancelled, "cancelled")
    assert status_of(client, cancelled) == "cancelled"
    assert worker.step(kept, 1, 20) == "ok"


def test_a_stream_that_breaks_does_not_count_as_a_disconnect(
    client: httpx2.Client, worker: ManualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)

    async def no_events(*_: object, **__: object) -> AsyncGenerator[None]:
        if client.is_closed:
            yield None
        raise QueueUnavailable("Redis does not answer")

    monkeypatch.setattr(JobQueue, "event_pages", no_events)
    query = "?cancel_on_disconnect=true"
    for _ in range(5):
        assert "retry" in client.get(f"/jobs/{job_id}/events{query}").text
    monkeypatch.undo()
    assert worker.step(job_id, 1, 20) == "ok"


def test_a_server_shutdown_does_not_cancel_the_job_of_a_waiting_call(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    other = ApiServer(settings)
    other.start()
    with waiting_call(other, worker, "?cancel_on_disconnect=true") as job_id:
        other.stop()
    assert status_of(client, job_id) == "queued"


def test_a_server_shutdown_does_not_count_as_a_disconnect(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = ApiServer(settings)
    other.start()
    caplog.set_level(logging.INFO, "api.submit.disconnect")
    job_id = submit_job(client)
    worker.claim(job_id)
    url = f"{other.url}/jobs/{job_id}/events?cancel_on_disconnect=true"
    with httpx2.stream("GET", url, timeout=60) as answer:
        lines = answer.iter_lines()
        assert "retry" in next(lines)
        other.stop()
        list(lines)
    assert worker.step(job_id, 1, 20) == "ok"
    assert "event=client_left" not in caplog.text
