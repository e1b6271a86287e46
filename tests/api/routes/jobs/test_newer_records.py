"""Records of a newer release are shown as far as they are known, and break no other job."""

import json
from typing import Any

import httpx2
import pytest
from redis import Redis

from tests.support.api_calls import parse_events, read_metrics, submit_job
from tests.support.manual_worker import ManualWorker
from worker.queue.layout import redis_keys

UNKNOWN = {
    "status": {"status": "paused"},
    "ended status": {"status": "archived", "finished": "1795392000.5"},
    "warning code": {"warnings": '[{"code": "new_code", "detail": "new"}]'},
    "warning without detail": {"warnings": '[{"code": "new_code"}, 5]'},
    "field of another type": {"attempt": "two", "step": "{}", "created": "yesterday"},
    "infinite numbers": {"attempt": "inf", "step": "-inf", "cost": "nan"},
    "time beyond all calendars": {"deadline": "1e300"},
    "list of another type": {"warnings": "{}", "images": '"none"', "webhook": "[]"},
    "cut short": {"request": '{"prompt": "a ca', "error": '{"co', "timings": "{", "inputs": "["},
    "request of another type": {"request": "[1, 2]"},
    "prompt of another type": {"request": '{"prompt": {"text": "cat"}, "seed": 7}'},
    "sampler": {"request": '{"sampler": "new_sampler", "steps": 9}'},
    "image format": {"images": '[{"url": "/images/x.jxl", "format": "jxl", "width": 1}]'},
    "timing": {"timings": '{"upscale": 1.5, "decode": 0.5}'},
    "recipe": {"recipe": '{"card": 5, "engine": "new"}', "original_recipe": "no"},
    "error": {"status": "failed", "error": '{"code": "new_code"}'},
}


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event tells the end of an odd record: a stream looks for it after a pause."""
    monkeypatch.setattr("worker.queue.job_queue._POLL_SECONDS", 0.2)


def rewrite(client: "Redis", job_id: str, **fields: str) -> None:
    client.hset(redis_keys.job_key(job_id), mapping=fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_record_of_a_newer_release_is_shown(
    client: httpx2.Client, redis_client: "Redis", kind: str
) -> None:
    odd, good = submit_job(client), submit_job(client)
    rewrite(redis_client, odd, **UNKNOWN[kind])
    listed = client.get("/jobs")
    assert listed.status_code == 200, listed.text
    assert [job["id"] for job in listed.json()["items"]] == [good, odd]
    shown = client.get(f"/jobs/{odd}").json()
    assert shown == {**listed.json()["items"][1], "eta_seconds": shown["eta_seconds"]}
    assert shown["status"] in ("queued", "failed")
    assert shown["created_at"] <= listed.json()["items"][0]["created_at"]
    codes = [warning["code"] for warning in shown["warnings"]]
    assert codes in (["new_code"], []) if kind in ("warning code", "timing") else ["not_understood"]
    assert client.get("/sdapi/v1/progress").status_code == 200
    ended = kind in ("ended status", "error")
    assert client.delete(f"/jobs/{odd}").status_code == (409 if ended else 202)
    assert client.get(f"/jobs/{odd}/events").status_code == 200


@pytest.mark.parametrize("field", ["status", "request", "warnings", "created", "attempt", "cost"])
def test_a_missing_field_hides_no_job(
    client: httpx2.Client, redis_client: "Redis", field: str
) -> None:
    job_id = submit_job(client)
    redis_client.hdel(redis_keys.job_key(job_id), field)
    (job,) = client.get("/jobs").json()["items"]
    assert (job["id"], job["status"]) == (job_id, "queued")
    assert client.delete(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_what_is_known_of_a_request_is_shown_but_not_replayed(
    client: httpx2.Client, redis_client: "Redis", worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    worker.finish(job_id, b"one")
    stored = redis_client.hget(redis_keys.job_key(job_id), "request")
    request: dict[str, Any] = json.loads(stored or "")
    rewrite(redis_client, job_id, request=json.dumps(request | {"cfg_scale": [1, 2]}))
    job = client.get(f"/jobs/{job_id}").json()
    assert {**job["request"], "cfg_scale": request["cfg_scale"]} == request
    assert "request.cfg_scale" in job["warnings"][0]["detail"]
    answer = client.post(f"/jobs/{job_id}/replay")
    assert answer.status_code == 409, answer.text
    assert "another release" in answer.json()["detail"]


def test_events_of_a_newer_release(client: httpx2.Client, redis_client: "Redis") -> None:
    job_id = submit_job(client)
    key = redis_keys.events_key(job_id)
    for event, data in (("paused", '{"by": "x"}'), ("progress", "[1]"), ("progress", "{cut")):
        redis_client.xadd(key, {"event": event, "data": data})
    last: Any = redis_client.xadd(key, {"event": "archived", "data": '{"images": [7]}'})
    rewrite(
        redis_client,
        job_id,
        status="archived",
        finished="1795392000",
        last_event=last.decode(),
    )
    events = parse_events(client.get(f"/jobs/{job_id}/events").text)
    assert [event["event"] for event in events] == [
        "queued",
        *("paused", "progress", "progress", "archived"),
    ]
    assert [event["data"] for event in events[1:]] == [{"by": "x"}, {}, {}, {"images": [7]}]


def test_the_heartbeat_of_a_newer_worker_counts(
    client: httpx2.Client, redis_client: "Redis", worker: ManualWorker
) -> None:
    worker.heartbeat()
    key = redis_keys.worker_key("manual-worker")
    beat = json.loads(redis_client.get(key) or "")
    redis_client.set(key, json.dumps(beat | {"power": 300}), keepttl=True)
    assert client.get("/readyz").status_code == 200
    redis_client.set(key, json.dumps(beat | {"running": "some"}), keepttl=True)
    assert client.get("/readyz").status_code == 503
    assert submit_job(client)


STRANGE = {"odd": [1]}


@pytest.mark.parametrize("value", ["many", STRANGE, 7, [7], float("nan"), None])
def test_details_of_a_newer_worker_break_nothing(
    client: httpx2.Client, redis_client: "Redis", worker: ManualWorker, value: object
) -> None:
    worker.heartbeat()
    key = redis_keys.worker_key("manual-worker")
    beat = json.loads(redis_client.get(key) or "")
    names = ("cost_per_second", "unstored", "step_seconds", "shortages", "checkpoints")
    details = beat["details"] | dict.fromkeys(names, value)
    redis_client.set(key, json.dumps(beat | {"details": details}), keepttl=True)
    assert client.get("/readyz").status_code in (200, 503)
    assert any(name == "kirazuri_worker_warm" for name, *_ in read_metrics(client))
    assert submit_job(client)


@pytest.mark.parametrize("text", ["{", "a b c d", "# TYPE x new\n", "kirazuri_x 1 nan\n"])
def test_metrics_of_a_newer_worker_that_cannot_be_read(
    client: httpx2.Client, redis_client: "Redis", worker: ManualWorker, text: str
) -> None:
    worker.heartbeat()
    redis_client.set(redis_keys.worker_metrics_key("manual-worker"), text)
    assert any(name == "kirazuri_worker_warm" for name, *_ in read_metrics(client))
