"""What the API answers while Redis is full: new jobs are refused, everything else goes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from redis import Redis

from tests.support.api_calls import PROMPT, read_metrics, read_problem, submit_job
from tests.support.api_keys import BODY, bearer, make_key, status_with
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key, revoke_key
from worker.redis_io.client import connect


@contextmanager
def full(client: "Redis") -> Iterator[None]:
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


def test_accepted_jobs_are_read_run_and_cancelled(
    client: httpx2.Client, worker: ManualWorker, redis_client: "Redis"
) -> None:
    done, running, waiting = submit_job(client), submit_job(client), submit_job(client)
    worker.heartbeat()
    with full(redis_client):
        worker.claim(done)
        worker.finish(done, b"picture")
        worker.claim(running)
        assert client.delete(f"/jobs/{running}").json()["status"] == "running"
        assert worker.step(running, 1, 20) == "cancel"
        worker.end(running, "cancelled")
        assert client.delete(f"/jobs/{waiting}").json()["status"] == "cancelled"
        assert client.get(f"/jobs/{done}").json()["status"] == "succeeded"
        assert client.get(client.get(f"/jobs/{done}").json()["images"][0]["url"]).is_success
        assert client.get("/jobs").status_code == 200
        assert "succeeded" in client.get(f"/jobs/{done}/events").text
        assert client.post("/generate?dry_run=true", json=BODY).status_code == 200
        assert client.get("/sdapi/v1/progress").status_code == 200
        assert client.post("/sdapi/v1/interrupt").status_code == 200


def test_new_jobs_are_refused_with_the_reason(
    client: httpx2.Client, worker: ManualWorker, redis_client: "Redis"
) -> None:
    worker.heartbeat()
    openai = {"prompt": PROMPT, "model": "kirazuri-tiny"}
    calls = {
        "/generate": (BODY, {"Idempotency-Key": "key"}),
        "/sdapi/v1/txt2img": ({"prompt": PROMPT}, {}),
        "/v1/images/generations": (openai, {}),
    }
    with full(redis_client):
        for path, (body, headers) in calls.items():
            answer = client.post(path, json=body, headers=headers)
            assert answer.status_code == 503, path
            assert "maxmemory" in answer.text, path
            assert answer.headers["retry-after"]
        (reason,) = read_problem(client.get("/readyz"))["reasons"]
        assert reason.startswith("redis: ")
        assert "maxmemory" in reason
        numbers = read_metrics(client)
    assert numbers["kirazuri_redis_fault", "memory"] == 1
    assert numbers["kirazuri_redis_memory_ratio",] > 1
    again = client.post("/generate", json=BODY, headers={"Idempotency-Key": "key"})
    assert again.status_code == 202


def test_keys_can_be_revoked(
    public_client: httpx2.Client, redis_client: "Redis", redis_url: str
) -> None:
    secret, key = make_key("limited", rate="60/minute")
    add_key(redis_client, key)
    wait_until(lambda: status_with(public_client, bearer(secret)) == 200)
    with full(redis_client), connect(redis_url) as operator:
        refused = public_client.post("/generate", json=BODY, headers=bearer(secret))
        assert refused.status_code == 503
        assert revoke_key(operator, "limited")
        wait_until(lambda: status_with(public_client, bearer(secret)) == 401)
