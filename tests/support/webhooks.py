"""Steps of tests that send webhooks: jobs with a webhook, their delivery log, signatures."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx2
from redis import Redis
from standardwebhooks import Webhook as Verifier

from tests.support.api_calls import submit_job
from tests.support.manual_worker import ManualWorker
from tests.support.receiver import Received, Receiver
from tests.support.waiting import wait_until
from worker.queue.layout import redis_keys

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

MakeReceiver = Callable[..., Receiver]
"""The fixture `receiver`: `receiver(503, 204)` is a server that answers 503, then always 204."""


def finish_job(client: httpx2.Client, worker: ManualWorker, url: str) -> str:
    """The id of a succeeded job with a webhook to `url`."""
    job_id = submit_job(client, webhook={"url": url})
    worker.claim(job_id)
    worker.finish(job_id, b"picture")
    return job_id


def delivery_log(client: httpx2.Client, job_id: str) -> list[Any]:
    """The logged delivery attempts of a job."""
    log: list[Any] = client.get(f"/jobs/{job_id}").json()["webhook"]["deliveries"]
    return log


def wait_for_attempts(client: httpx2.Client, job_id: str, count: int) -> list[Any]:
    """The delivery log, as soon as it has `count` entries or more."""
    wait_until(lambda: len(delivery_log(client, job_id)) >= count)
    return delivery_log(client, job_id)


def wait_until_outbox_is_empty(redis: "Redis") -> None:
    """Wait until nothing remains to be sent."""
    wait_until(lambda: redis.zcard(redis_keys.OUTBOX) == 0)
    assert redis.keys("kirazuri:delivery:*") == []


def verify(received: Received, secret: str = SECRET) -> Any:
    """The message of a request with a valid signature."""
    return Verifier(secret).verify(received.body, received.headers)


def seconds_of(timestamp: str) -> float:
    """Unix time of an ISO timestamp."""
    return datetime.fromisoformat(timestamp).timestamp()


def fake_resolver(*answers: Sequence[str]) -> tuple[list[str], Callable[[str, int], Any]]:
    """The queried names, and a resolver that gives `answers` in turn and repeats the last one."""
    queried: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        queried.append(host)
        return answers[min(len(queried), len(answers)) - 1]

    return queried, resolve
