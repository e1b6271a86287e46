"""Messages: their content, events, URLs and signatures."""

import httpx2
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from tests.support.api_calls import PROMPT, submit_job
from tests.support.manual_worker import ManualWorker
from tests.support.receiver import sending
from tests.support.webhooks import (
    SECRET,
    MakeReceiver,
    finish_job,
    seconds_of,
    verify,
    wait_for_attempts,
    wait_until_outbox_is_empty,
)
from worker.job_errors import job_error
from worker.queue.layout import redis_keys, rq_layout
from worker.settings import Settings

OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_message_of_a_succeeded_job(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    answer = client.post(
        "/generate",
        json={"prompt": PROMPT, "webhook": {"url": f"{hook.url}?key=secret"}},
        headers={"traceparent": TRACE},
    )
    job = answer.json()
    assert job["webhook"] == {
        "url": f"{hook.url}?…",
        "events": ["succeeded", "failed", "cancelled"],
        "deliveries": [],
    }
    worker.claim(job["id"])
    worker.finish(job["id"], b"picture")
    shown = client.get(f"/jobs/{job['id']}").json()
    with sending(settings):
        (received,) = hook.wait_for(1)
        (entry,) = wait_for_attempts(client, job["id"], 1)
    message = verify(received)
    assert message["type"] == "job.succeeded"
    assert message["data"] == shown
    assert client.get(message["data"]["images"][0]["url"]).content == b"picture"
    assert abs(seconds_of(message["timestamp"]) - seconds_of(shown["finished_at"])) < 0.01
    assert received.path == "/hook?key=secret"
    assert received.headers["host"] == f"127.0.0.1:{hook.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["traceparent"] == TRACE
    assert received.headers["user-agent"].startswith("kirazuri-server/")
    assert "secret" not in received.body.decode()
    assert entry == {
        "id": received.headers["webhook-id"],
        "event": "succeeded",
        "attempt": 1,
        "at": entry["at"],
        "seconds": entry["seconds"],
        "status": 204,
        "error": None,
        "next_at": None,
    }
    assert seconds_of(entry["at"]) >= seconds_of(shown["finished_at"])
    wait_until_outbox_is_empty(worker.redis)


def test_only_requested_events_are_sent(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    started = submit_job(client, webhook={"url": hook.url, "events": ["started", "started"]})
    failed = submit_job(client, webhook={"url": hook.url, "events": ["failed"]})
    cancelled = submit_job(client, webhook={"url": hook.url})
    succeeded = submit_job(client, webhook={"url": hook.url, "events": ["failed"]})
    without = submit_job(client)
    for job_id in (started, failed, succeeded, without):
        worker.claim(job_id)
    worker.step(started, 3, 20)
    worker.end(failed, "failed", error=job_error("non_finite", "NaN"))
    client.delete(f"/jobs/{cancelled}")
    for job_id in (started, succeeded, without):
        worker.finish(job_id, b"picture")
    with sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    assert len(hook.received) == 3
    messages = {message["data"]["id"]: message for message in map(verify, hook.received)}
    assert messages[started]["type"] == "job.started"
    # The job as it was at its start, although it has succeeded since.
    assert messages[started]["data"]["status"] == "running"
    assert messages[started]["data"]["progress"]["step"] == 0
    assert messages[started]["data"]["finished_at"] is None
    assert messages[failed]["type"] == "job.failed"
    assert messages[failed]["data"]["error"]["code"] == "non_finite"
    assert messages[cancelled]["type"] == "job.cancelled"
    assert messages[cancelled]["data"]["status"] == "cancelled"


def test_every_attempt_at_a_job_sends_started(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    job_id = submit_job(client, webhook={"url": hook.url, "events": ["started"]})
    worker.claim(job_id)
    worker.redis.zrem(rq_layout.leases_key(), f"{job_id}:token")
    worker.redis.hset(redis_keys.job_key(job_id), "token", "a worker that died")
    worker.claim(job_id)
    with sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    assert sorted(received.message["data"]["attempts"] for received in hook.received) == [1, 2]
    assert len({received.headers["webhook-id"] for received in hook.received}) == 2


def test_urls_use_the_host_that_the_client_called(
    client: httpx2.Client, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    answer = client.post(
        "/generate",
        json={"prompt": PROMPT, "webhook": {"url": hook.url}},
        headers={"host": "pictures.localhost"},
    )
    job_id = answer.json()["id"]
    client.delete(f"/jobs/{job_id}")
    with sending(settings):
        (received,) = hook.wait_for(1)
    assert received.message["data"]["links"]["self"] == f"http://pictures.localhost/jobs/{job_id}"


def test_both_secrets_sign_during_a_change(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    finish_job(client, worker, hook.url)
    both = settings.model_dump() | {"webhook_secret": f"{SECRET} {OLD_SECRET}"}
    with sending(Settings(_env_file=None, **both)):
        (received,) = hook.wait_for(1)
    assert verify(received, SECRET) == verify(received, OLD_SECRET)
    with pytest.raises(WebhookVerificationError):
        verify(received, "whsec_" + "A" * 32)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(received.body.replace(b"succeeded", b"failed"), received.headers)
