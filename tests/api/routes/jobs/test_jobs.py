"""Reading jobs, cancelling them and streaming their events."""

import json
import threading

import httpx2
import pytest

from api.http.sse import KEEPALIVE_SECONDS
from tests.support.api_calls import parse_events, read_metrics, read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.job_errors import job_error
from worker.settings import Settings


def test_a_job_from_queue_to_image(
    client: httpx2.Client, worker: ManualWorker, server: ApiServer
) -> None:
    job_id = submit_job(client, num_images=2)
    worker.claim(job_id)
    worker.step(job_id, 5, 20)
    running = client.get(f"/jobs/{job_id}").json()
    assert running["status"] == "running"
    assert running["progress"] == {"step": 5, "steps": 20, "fraction": 0.25}
    assert running["worker"] == "manual-worker"
    assert running["attempts"] == 1
    assert running["queue_position"] is None

    stored = worker.finish(job_id, b"one", b"two")
    answer = client.get(f"/jobs/{job_id}")
    assert answer.headers["cache-control"] == "no-store"
    job = answer.json()
    assert job["status"] == "succeeded"
    assert job["progress"]["fraction"] == 1
    assert [image["url"] for image in job["images"]] == [server.url + i.url for i in stored]
    assert [client.get(image["url"]).content for image in job["images"]] == [b"one", b"two"]
    assert job["timings"]["denoise"] == 0.2
    assert job["links"]["cancel"] is None
    assert job["error"] is None
    assert job["created_at"] <= job["started_at"] <= job["finished_at"] < job["expires_at"]


def test_a_failed_job_says_why(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.end(job_id, "failed", error=job_error("non_finite", "latents of image 0, step 3"))
    job = client.get(f"/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"]["code"] == "non_finite"
    explanation = client.get(job["error"]["type"]).json()
    assert explanation["type"] == job["error"]["type"]
    assert explanation["title"] == job["error"]["title"]
    assert explanation["explanation"]


def test_cancelling_a_waiting_job(client: httpx2.Client) -> None:
    job_id = submit_job(client)
    answer = client.delete(f"/jobs/{job_id}")
    assert answer.status_code == 202
    assert answer.json()["status"] == "cancelled"
    again = client.delete(f"/jobs/{job_id}")
    assert again.status_code == 409
    assert read_problem(again)["code"] == "job_already_finished"


def test_cancelling_a_running_job_reaches_its_worker(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    assert worker.step(job_id, 1, 20) == "ok"
    answer = client.delete(f"/jobs/{job_id}")
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert worker.step(job_id, 2, 20) == "cancel"
    worker.end(job_id, "cancelled")
    assert client.get(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_a_stream_has_all_events_and_ends(
    client: httpx2.Client, worker: ManualWorker, server: ApiServer
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.step(job_id, 10, 20)
    (image,) = worker.finish(job_id, b"picture")
    answer = client.get(f"/jobs/{job_id}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 2000\n\n")
    events = parse_events(answer.text)
    assert [event["event"] for event in events] == ["queued", "started", "progress", "succeeded"]
    assert events[2]["data"] == {"step": 10, "steps": 20}
    (shown,) = events[3]["data"]["images"]
    assert shown["url"] == server.url + image.url
    ids = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert ids == sorted(set(ids))


def test_events_have_only_ascii(client: httpx2.Client, worker: ManualWorker) -> None:
    """Many clients split a text at U+2028 and U+0085, too, which would cut an event in two."""
    job_id, detail = submit_job(client), "no LoRA named 'é\x85\u2028'"
    worker.claim(job_id)
    worker.end(job_id, "failed", error=job_error("lora_missing", detail))
    answer = client.get(f"/jobs/{job_id}/events")
    assert answer.content.isascii()
    assert parse_events(answer.text)[-1]["data"]["error"]["detail"] == detail


def test_an_image_event_has_an_absolute_url(
    client: httpx2.Client, worker: ManualWorker, server: ApiServer
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.report(job_id, "image", {"url": "/images/a.png", "seed": 1})
    worker.end(job_id, "cancelled")
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert events[2]["data"] == {"url": f"{server.url}/images/a.png", "seed": 1}


def test_a_stream_continues_after_the_last_event_seen(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    for step in range(1, 6):
        worker.step(job_id, step, 20)
    worker.end(job_id, "cancelled")
    path = f"/jobs/{job_id}/events"
    events = parse_events(client.get(path).text)
    for seen in range(len(events) - 1):
        headers = {"last-event-id": events[seen]["id"]}
        assert parse_events(client.get(path, headers=headers).text) == events[seen + 1 :]


def test_a_client_that_has_seen_the_last_event_gets_204(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.end(job_id, "cancelled")
    path = f"/jobs/{job_id}/events"
    last = parse_events(client.get(path).text)[-1]["id"]
    answer = client.get(path, headers={"last-event-id": last})
    assert answer.status_code == 204
    assert answer.content == b""
    assert client.get("/livez").status_code == 200


def test_a_malformed_last_event_id_is_refused(client: httpx2.Client) -> None:
    job_id = submit_job(client)
    for last in ("abc", "1", "1-", "-1-0", "1-0; DROP", "9" * 30 + "-0"):
        answer = client.get(f"/jobs/{job_id}/events", headers={"last-event-id": last})
        assert answer.status_code == 422, last
        (error,) = read_problem(answer)["errors"]
        assert "last-event-id" in error["detail"]


def test_events_arrive_as_they_happen(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client)
    with client.stream("GET", f"/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event")) == "event: queued"
        worker.claim(job_id)
        assert next(line for line in lines if line.startswith("event")) == "event: started"
        for step in range(1, 6):
            worker.step(job_id, step, 20)
            data = next(line for line in lines if line.startswith("data") and "step" in line)
            assert json.loads(data.removeprefix("data: "))["step"] == step
        worker.end(job_id, "cancelled")
        assert "event: cancelled" in list(lines)


def test_all_listeners_get_the_same_events(
    client: httpx2.Client, worker: ManualWorker, server: ApiServer
) -> None:
    job_id = submit_job(client)
    texts: list[str] = []

    def listen() -> None:
        texts.append(httpx2.get(f"{server.url}/jobs/{job_id}/events", timeout=60).text)

    listeners = [threading.Thread(target=listen) for _ in range(20)]
    for listener in listeners:
        listener.start()
    wait_for_streams(client, 20)
    worker.claim(job_id)
    worker.step(job_id, 1, 20)
    worker.end(job_id, "cancelled")
    for listener in listeners:
        listener.join()
    assert len(texts) == 20
    assert len(set(texts)) == 1


def wait_for_streams(client: httpx2.Client, count: int) -> None:
    wait_until(lambda: read_metrics(client)["kirazuri_event_streams",] == count)


def test_closed_streams_are_not_counted(
    client: httpx2.Client, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = submit_job(client)
    leaving = httpx2.Client(base_url=server.url, timeout=20)
    with leaving:
        for _ in range(10):
            request = leaving.build_request("GET", f"/jobs/{job_id}/events")
            leaving.send(request, stream=True)
        wait_for_streams(client, 10)
    wait_for_streams(client, 0)
    assert "Exception in ASGI application" not in caplog.text


def test_a_stopping_server_ends_its_streams_in_order(
    settings: Settings, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = ApiServer(settings)
    stopping.start()
    with httpx2.Client(base_url=stopping.url, timeout=20) as client:
        job_id = submit_job(client)
        with client.stream("GET", f"/jobs/{job_id}/events") as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line.startswith("event")) == "event: queued"
            stopping.stop()
            assert not [line for line in lines if line.startswith("event")]
    assert "Exception in ASGI application" not in caplog.text


def test_comments_keep_a_silent_stream_alive(
    client: httpx2.Client, worker: ManualWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.sse.KEEPALIVE_SECONDS", 0.1)
    monkeypatch.setattr("worker.queue.job_queue._POLL_SECONDS", 0.05)
    job_id = submit_job(client)
    with client.stream("GET", f"/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert [next(line for line in lines if line.startswith(":")) for _ in range(3)]
        client.delete(f"/jobs/{job_id}")
        assert "event: cancelled" in list(lines)


def test_the_keepalive_interval() -> None:
    assert KEEPALIVE_SECONDS == 15
