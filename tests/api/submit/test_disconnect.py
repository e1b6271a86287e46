"""Deadlines of jobs, and clients that leave: a job goes on unless somebody asked for its end."""

import threading
import time

import httpx2
import pytest

from api.submit.context import parse_duration
from tests.support.api_calls import PROMPT, parse_events, read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from worker.queue.layout import redis_keys
from worker.settings import Settings

BODY = {"prompt": PROMPT}


def submit_until(client: httpx2.Client, cancel_after: str) -> str:
    answer = client.post("/generate", json=BODY, headers={"cancel-after": cancel_after})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def until(client: httpx2.Client, job_id: str, status: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while client.get(f"/jobs/{job_id}").json()["status"] != status:
        assert time.monotonic() < deadline, f"not {status} in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("90", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), ("24h", 86_400)],
)
def test_spans(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "soon", "25h", "1.5m", "5m1h", "9" * 40])
def test_what_is_no_span_is_refused(client: httpx2.Client, text: str) -> None:
    with pytest.raises(ValueError, match="from 1s to 24h"):
        parse_duration(text)
    answer = client.post("/generate", json=BODY, headers={"cancel-after": text})
    assert answer.status_code == 422
    assert "cancel-after" in read_problem(answer)["errors"][0]["detail"]


def test_a_job_says_when_its_time_is_over(client: httpx2.Client) -> None:
    job = client.get(f"/jobs/{submit_until(client, '90s')}").json()
    created, deadline = (job[name][:19] for name in ("created_at", "cancel_at"))
    assert created < deadline
    assert client.get(f"/jobs/{submit_job(client)}").json()["cancel_at"] is None


def test_a_running_job_whose_time_is_over_is_taken_from_its_worker(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_until(client, "1s")
    worker.claim(job_id)
    assert worker.step(job_id, 1, 20) == "ok"
    time.sleep(1.1)
    assert worker.step(job_id, 2, 20) == "cancel"
    worker.end(job_id, "cancelled")
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert events[-1]["event"] == "cancelled"
    assert events[-1]["data"] == {"reason": "deadline"}


def test_a_job_that_was_done_in_time_stays_done(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_until(client, "1s")
    worker.claim(job_id)
    worker.finish(job_id, b"picture")
    time.sleep(1.1)
    assert worker.end_overdue() == []
    assert client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"


def test_a_waiting_job_whose_time_is_over_is_ended_by_any_worker(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id, other = submit_until(client, "1s"), submit_job(client)
    assert worker.end_overdue() == []
    time.sleep(1.1)
    assert worker.end_overdue() == [job_id]
    assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"
    assert worker.queued_ids() == [other]
    assert worker.end_overdue() == []
    assert worker.redis.zcard(redis_keys.DEADLINES) == 0


def test_without_any_worker_a_look_ends_it(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_until(client, "1s")
    worker.redis.hset(redis_keys.job_key(job_id), "deadline", time.time() - 10)
    assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_clients_own_cancel_is_told_apart(client: httpx2.Client) -> None:
    job_id = submit_until(client, "1h")
    client.delete(f"/jobs/{job_id}")
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert events[-1]["data"] == {"reason": "client"}


def leave_while_waiting(server: ApiServer, query: str) -> None:
    """Submit, and hang up long before the answer."""
    waits = httpx2.Timeout(5, read=0.3)
    url = f"{server.url}/generate{query}"
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(url, json=BODY, headers={"prefer": "wait=1"}, timeout=waits)


@pytest.mark.parametrize(
    ("query", "status"), [("?cancel_on_disconnect=true", "cancelled"), ("", "queued")]
)
def test_leaving_a_synchronous_call(
    client: httpx2.Client, server: ApiServer, worker: ManualWorker, query: str, status: str
) -> None:
    leave_while_waiting(server, query)
    (job_id,) = worker.queued_ids() or [worker.newest_id()]
    time.sleep(1)
    assert client.get(f"/jobs/{job_id}").json()["status"] == status


def test_whoever_stays_gets_the_answer(client: httpx2.Client, worker: ManualWorker) -> None:
    def work() -> None:
        while not worker.queued_ids():
            time.sleep(0.01)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, b"picture")

    threading.Thread(target=work).start()
    answer = client.post(
        "/generate?cancel_on_disconnect=true", json=BODY, headers={"prefer": "wait=1"}
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


@pytest.mark.parametrize(
    ("query", "status"), [("?cancel_on_disconnect=true", "cancelled"), ("", "running")]
)
def test_leaving_a_stream(
    client: httpx2.Client, worker: ManualWorker, query: str, status: str
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    with client.stream("GET", f"/jobs/{job_id}/events{query}") as answer:
        assert "retry" in next(answer.iter_lines())
    deadline = time.monotonic() + 3
    while worker.step(job_id, 1, 20) != "cancel" and time.monotonic() < deadline:
        time.sleep(0.05)
    if status == "cancelled":
        worker.end(job_id, "cancelled")
    until(client, job_id, status)


def test_a_server_that_stops_is_no_client_that_left(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    other = ApiServer(settings)
    other.start()
    job_id = submit_job(client)
    worker.claim(job_id)
    url = f"{other.url}/jobs/{job_id}/events?cancel_on_disconnect=true"
    with httpx2.stream("GET", url, timeout=20) as answer:
        lines = answer.iter_lines()
        assert "retry" in next(lines)
        other.stop()
        list(lines)
    time.sleep(0.5)
    assert worker.step(job_id, 1, 20) == "ok"
