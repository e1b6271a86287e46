"""Time limits, retries and disconnects: no image is lost, and none is made twice."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from openai import (
    APIError,
    APIStatusError,
    ConflictError,
    InternalServerError,
    OpenAI,
    RateLimitError,
)

from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import RecordedExchanges, openai_client, read_openai_error
from tests.support.pending_call import PendingCall
from tests.support.waiting import wait_until
from worker.job_errors import job_error
from worker.queue.layout.redis_keys import COUNTERS
from worker.settings import Settings

GENERATE = "/v1/images/generations"
BODY: dict[str, Any] = {"prompt": "1girl, blue hair, smile, hair bow"}
FILE = encode_file(draw_image())
LONG_WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sync_wait_seconds": 0.2, "max_wait_seconds": 60})


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official client waits less before a retry, unless the service asks it to wait."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


@pytest.fixture
def exchanges() -> RecordedExchanges:
    return RecordedExchanges()


@pytest.fixture
def openai(server: ApiServer, redis_url: str, exchanges: RecordedExchanges) -> Iterator[OpenAI]:
    with openai_client(server.url, exchanges, max_retries=100, timeout=60) as opened:
        yield opened


@pytest.fixture
def job_count(worker: ManualWorker) -> Callable[[], int]:
    """Counts the jobs made so far."""

    def count() -> int:
        counted: Any = worker.redis.hget(COUNTERS, "accepted")
        return int(counted or 0)

    return count


@contextmanager
def in_background(action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in a thread meanwhile; raises what it raises."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(action)
        yield
        running.result()


def finish(worker: ManualWorker, job_id: str) -> None:
    worker.claim(job_id)
    worker.finish(job_id, FILE)


def wait_for_jobs(job_count: Callable[[], int], number: int) -> None:
    wait_until(lambda: job_count() == number)


def status(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


# -- time limit ----------------------------------------------------------------------------------


def test_call_over_its_time_limit_names_the_job(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    response = client.post(GENERATE, json=BODY)
    error = read_openai_error(response, 504)
    (job_id,) = worker.queued_ids()
    assert (error["code"], error["type"]) == ("job_unfinished", "server_error")
    assert error["job_id"] == response.headers["x-job-id"] == job_id
    assert f"/jobs/{job_id}" in error["message"]
    assert response.headers["location"] == f"/jobs/{job_id}"
    finish(worker, job_id)
    job = client.get(response.headers["location"]).json()
    assert job["status"] == "succeeded"
    assert client.get(job["images"][0]["url"]).status_code == 200


def test_stream_has_no_time_limit(
    openai: OpenAI, client: httpx2.Client, worker: ManualWorker
) -> None:
    stream = openai.images.generate(**BODY, stream=True)
    read_openai_error(client.post(GENERATE, json=BODY), 504)  # a later call is over its limit
    finish(worker, worker.queued_ids()[0])
    (event,) = stream
    assert base64.b64decode(event.b64_json) == FILE


# -- retries -------------------------------------------------------------------------------------


def test_retry_waits_for_the_job_of_the_first_attempt(
    openai: OpenAI,
    exchanges: RecordedExchanges,
    worker: ManualWorker,
    job_count: Callable[[], int],
) -> None:
    def finish_after_first_response() -> None:
        wait_until(lambda: exchanges.responses)
        finish(worker, *worker.queued_ids())

    with in_background(finish_after_first_response):
        response = openai.images.generate(**BODY)
    assert response.data is not None
    assert base64.b64decode(response.data[0].b64_json or "") == FILE
    counts = [request.headers["x-stainless-retry-count"] for request in exchanges.requests]
    assert counts == [str(number) for number in range(len(counts))]
    assert len(counts) > 1
    assert exchanges.responses[0].headers["x-should-retry"] == "true"
    assert job_count() == 1


def test_last_error_of_a_client_that_gives_up_names_the_job(
    openai: OpenAI,
    worker: ManualWorker,
    exchanges: RecordedExchanges,
    job_count: Callable[[], int],
) -> None:
    with pytest.raises(InternalServerError) as late:
        openai.with_options(max_retries=1).images.generate(**BODY)
    assert len(exchanges.requests) == 2
    assert late.value.status_code == 504
    assert late.value.response.headers["x-job-id"] == worker.queued_ids()[0]
    assert job_count() == 1


def test_client_that_times_out_and_retries_makes_one_job(
    openai: OpenAI,
    exchanges: RecordedExchanges,
    worker: ManualWorker,
    job_count: Callable[[], int],
) -> None:
    def give_up_once(request: httpx2.Request) -> None:
        if len(exchanges.requests) == 1:
            request.extensions["timeout"]["read"] = 0.3

    def finish_after_second_request() -> None:
        wait_until(lambda: len(exchanges.requests) > 1 and worker.queued_ids())
        finish(worker, *worker.queued_ids())

    openai._client.event_hooks["request"].append(give_up_once)
    with in_background(finish_after_second_request):
        response = openai.images.generate(**BODY, extra_headers=LONG_WAIT)
    assert response.data
    assert len(exchanges.requests) == 2
    assert job_count() == 1


def test_each_call_is_a_job_of_its_own(
    openai: OpenAI, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    def finish_each() -> None:
        for number in range(3):
            wait_for_jobs(job_count, number + 1)
            finish(worker, *worker.queued_ids())

    with in_background(finish_each):
        responses: list[Any] = [
            openai.images.generate(**BODY, extra_headers=LONG_WAIT) for _ in range(3)
        ]
    assert len({response.job_id for response in responses}) == job_count() == 3


def test_a_delivered_job_is_not_found_by_later_retries(
    client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    def finish_each() -> None:
        for number in range(2):
            wait_for_jobs(job_count, number + 1)
            finish(worker, *worker.queued_ids())

    with in_background(finish_each):
        ids = []
        for count in ("0", "1"):
            headers = {"X-Stainless-Retry-Count": count, "Prefer": "wait=60"}
            ids.append(client.post(GENERATE, json=BODY, headers=headers).headers["x-job-id"])
            wait_until(lambda: not worker.redis.keys("kirazuri:idem:*"))  # after the response
    assert len(set(ids)) == 2


def test_idempotency_key_of_the_client(
    openai: OpenAI, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    headers = {"Idempotency-Key": "mine"}
    for _ in range(2):
        with pytest.raises(InternalServerError):
            openai.with_options(max_retries=0).images.generate(**BODY, extra_headers=headers)
    assert len(worker.queued_ids()) == job_count() == 1
    with pytest.raises(APIStatusError) as conflict:
        openai.images.generate(prompt="another", extra_headers=headers)
    assert (conflict.value.status_code, conflict.value.code) == (422, "idempotency_conflict")
    assert job_count() == 1


def test_full_queue_is_retried_when_the_service_says(
    openai: OpenAI,
    client: httpx2.Client,
    exchanges: RecordedExchanges,
    worker: ManualWorker,
    job_count: Callable[[], int],
) -> None:
    for _ in range(5):
        assert client.post("/generate", json=BODY).status_code == 202
    refused = client.post(GENERATE, json=BODY)
    assert read_openai_error(refused, 429)["code"] == "queue_full"
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    with pytest.raises(RateLimitError):
        openai.with_options(max_retries=0).images.generate(**BODY)

    def make_room() -> None:
        wait_until(lambda: len(exchanges.responses) > 1)
        finish(worker, worker.queued_ids()[0])
        wait_until(lambda: job_count() == 6)
        finish(worker, worker.queued_ids()[-1])

    with in_background(make_room):
        response = openai.images.generate(**BODY)
    assert response.data
    assert job_count() == 6


def test_failed_job_is_not_retried(
    openai: OpenAI,
    exchanges: RecordedExchanges,
    worker: ManualWorker,
    job_count: Callable[[], int],
) -> None:
    def fail() -> None:
        wait_until(worker.queued_ids)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.end(job_id, "failed", error=job_error("non_finite", "NaN in the latents"))

    with in_background(fail), pytest.raises(InternalServerError) as failed:
        openai.images.generate(**BODY, extra_headers=LONG_WAIT)
    assert failed.value.code == "non_finite"
    assert len(exchanges.requests) == 1
    assert exchanges.responses[0].headers["x-should-retry"] == "false"
    assert job_count() == 1


def test_cancelled_job_is_not_retried(
    openai: OpenAI, client: httpx2.Client, exchanges: RecordedExchanges, worker: ManualWorker
) -> None:
    def cancel() -> None:
        wait_until(worker.queued_ids)
        client.delete(f"/jobs/{worker.queued_ids()[0]}")

    with in_background(cancel), pytest.raises(ConflictError) as cancelled:
        openai.images.generate(**BODY, extra_headers=LONG_WAIT)
    assert cancelled.value.code == "job_cancelled"
    assert len(exchanges.requests) == 1, "the client retries other 409 responses"


def test_cancelled_job_ends_its_stream(
    openai: OpenAI, client: httpx2.Client, worker: ManualWorker
) -> None:
    stream = openai.images.generate(**BODY, stream=True, partial_images=3)
    job_id = stream.response.headers["x-job-id"]
    worker.claim(job_id)
    image = "data:image/webp;base64," + base64.b64encode(b"preview").decode()
    worker.report(job_id, "preview", {"image": image, "step": 5, "index": 0})
    assert base64.b64decode(next(stream).b64_json) == b"preview"
    assert client.delete(f"/jobs/{job_id}").status_code == 202
    assert worker.step(job_id, 6, 20) == "cancel"
    worker.end(job_id, "cancelled")
    with pytest.raises(APIError) as failed:
        list(stream)
    assert failed.value.code == "job_cancelled"


# -- disconnects ---------------------------------------------------------------------------------


def test_disconnecting_cancels_only_calls_that_ask_for_it(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, job_count: Callable[[], int]
) -> None:
    ids = []
    for number, query in enumerate(("", "?cancel_on_disconnect=true"), start=1):
        call = PendingCall(server.url, GENERATE + query, BODY | {"seed": number}, LONG_WAIT)
        wait_for_jobs(job_count, number)
        call.disconnect()
        ids.append(worker.newest_id())
    kept, ended = ids
    wait_until(lambda: status(client, ended) == "cancelled")
    assert status(client, kept) == "queued"


def test_closing_a_stream_cancels_only_jobs_that_ask_for_it(
    openai: OpenAI, client: httpx2.Client
) -> None:
    streams = [
        openai.images.generate(**BODY, stream=True, extra_query=query)
        for query in ({}, {"cancel_on_disconnect": "true"})
    ]
    kept, ended = (stream.response.headers["x-job-id"] for stream in streams)
    for stream in streams:
        stream.close()
    wait_until(lambda: status(client, ended) == "cancelled")
    assert status(client, kept) == "queued"
