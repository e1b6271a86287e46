"""Calls that wait too long, are given up or are tried again: no picture lost, none made twice."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from openai import (
    APIError,
    APITimeoutError,
    ConflictError,
    InternalServerError,
    OpenAI,
    RateLimitError,
)
from PIL import Image
from redis import Redis

from api.submit.disconnect import POLL_SECONDS
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import (
    RecordedExchanges,
    fake_worker,
    is_error,
    openai_client,
    opened,
    png,
)
from worker.queue.layout.redis_keys import COUNTERS
from worker.redis_io.client import connect
from worker.settings import Settings

GENERATE = "/v1/images/generations"
BODY: dict[str, Any] = {"prompt": "1girl, blue hair, smile, hair bow"}


PICTURE = png(Image.new("RGB", (128, 128), "red"))
PATIENT = {"Prefer": "wait=30"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sync_wait_seconds": 0.4, "max_wait_seconds": 30})


@pytest.fixture
def exchanges() -> RecordedExchanges:
    return RecordedExchanges()


@pytest.fixture
def openai(server: ApiServer, redis_url: str, exchanges: RecordedExchanges) -> Iterator[OpenAI]:
    with openai_client(server.url, exchanges) as opened:
        yield opened


@pytest.fixture
def accepted(redis_url: str) -> Iterator[Callable[[], int]]:
    """How many jobs were made."""
    with connect(redis_url) as connection:
        yield lambda: _count(connection)


def _count(connection: "Redis") -> int:
    counted: Any = connection.hget(COUNTERS, "accepted")
    return int(counted or 0)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_call_over_its_time_leaves_a_job(client: httpx2.Client, worker: ManualWorker) -> None:
    answer = client.post(GENERATE, json=BODY)
    error = is_error(answer, 504)
    (job_id,) = worker.queued_ids()
    assert (error["code"], error["type"]) == ("job_unfinished", "server_error")
    assert error["job_id"] == answer.headers["x-job-id"] == job_id
    assert f"/jobs/{job_id}" in error["message"]
    assert answer.headers["location"] == f"/jobs/{job_id}"
    worker.claim(job_id)
    worker.finish(job_id, PICTURE)
    job = client.get(answer.headers["location"]).json()
    assert job["status"] == "succeeded"
    assert client.get(job["images"][0]["url"]).status_code == 200


def test_prefer_says_how_long_to_wait(client: httpx2.Client, worker: ManualWorker) -> None:
    started = time.monotonic()
    answer = client.post(GENERATE, json=BODY, headers={"Prefer": "wait=0"})
    assert time.monotonic() - started < 15
    is_error(answer, 504)
    assert len(worker.queued_ids()) == 1


def test_the_official_client_waits_on_for_its_job(
    openai: OpenAI, exchanges: RecordedExchanges, worker: ManualWorker, accepted: Callable[[], int]
) -> None:
    """The second try finds the job of the first, which ends meanwhile."""

    def finish_late() -> None:
        eventually(lambda: exchanges.answers)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, PICTURE)

    finishing = threading.Thread(target=finish_late)
    finishing.start()
    answer = openai.images.generate(**BODY)
    finishing.join()
    assert answer.data is not None
    assert opened(base64.b64decode(answer.data[0].b64_json or "")).size == (128, 128)
    assert [sent.headers["x-stainless-retry-count"] for sent in exchanges.sent] == ["0", "1"]
    assert exchanges.answers[0].headers["x-should-retry"] == "true"
    assert accepted() == 1


def test_the_official_client_gives_up_in_the_end_and_knows_the_job(
    server: ApiServer,
    worker: ManualWorker,
    exchanges: RecordedExchanges,
    accepted: Callable[[], int],
) -> None:
    with (
        openai_client(server.url, exchanges, max_retries=1) as openai,
        pytest.raises(InternalServerError) as late,
    ):
        openai.images.generate(**BODY)
    assert len(exchanges.sent) == 2
    assert late.value.status_code == 504
    assert late.value.response.headers["x-job-id"] == worker.queued_ids()[0]
    assert accepted() == 1


def test_a_client_that_runs_out_of_time_itself_makes_one_job(
    server: ApiServer, settings: Settings, exchanges: RecordedExchanges, accepted: Callable[[], int]
) -> None:
    """Its own time-out is shorter than the picture takes: it hangs up and tries again."""
    with (
        fake_worker(settings, step_seconds=0.02),
        openai_client(server.url, exchanges, timeout=0.6, max_retries=20) as openai,
    ):
        answer = openai.images.generate(**BODY, extra_body={"steps": 100}, extra_headers=PATIENT)
    assert answer.data
    assert len(exchanges.sent) > 1
    assert accepted() == 1


def test_each_call_of_its_own_is_a_job_of_its_own(
    server: ApiServer, settings: Settings, accepted: Callable[[], int]
) -> None:
    with fake_worker(settings), openai_client(server.url) as openai:
        answers: list[Any] = [
            openai.images.generate(**BODY, extra_headers=PATIENT) for _ in range(3)
        ]
    ids = {answer.job_id for answer in answers}
    assert len(ids) == accepted() == 3


def test_an_idempotency_key_of_the_clients_own(
    openai: OpenAI, worker: ManualWorker, accepted: Callable[[], int]
) -> None:
    headers = {"Idempotency-Key": "mine"}
    for _ in range(2):
        with pytest.raises(InternalServerError):
            openai.with_options(max_retries=0).images.generate(**BODY, extra_headers=headers)
    assert accepted() == 1
    with pytest.raises(Exception, match="idempotency key was used before") as conflict:
        openai.images.generate(prompt="another", extra_headers=headers)
    assert conflict.value.status_code == 422  # type: ignore[attr-defined]
    assert accepted() == 1


def test_a_full_queue_is_tried_again_when_it_says(
    openai: OpenAI,
    client: httpx2.Client,
    exchanges: RecordedExchanges,
    worker: ManualWorker,
    accepted: Callable[[], int],
) -> None:
    for _ in range(5):
        assert client.post("/generate", json=BODY).status_code == 202
    refused = client.post(GENERATE, json=BODY)
    assert is_error(refused, 429)["code"] == "queue_full"
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    with pytest.raises(RateLimitError):
        openai.with_options(max_retries=0).images.generate(**BODY)

    def make_room() -> None:
        eventually(lambda: len(exchanges.answers) == 2)
        job_id = worker.queued_ids()[0]
        worker.claim(job_id)
        worker.finish(job_id, PICTURE)
        eventually(lambda: accepted() == 6)
        mine = worker.queued_ids()[-1]
        worker.claim(mine)
        worker.finish(mine, PICTURE)

    working = threading.Thread(target=make_room)
    working.start()
    answer = openai.images.generate(**BODY)
    working.join()
    assert answer.data
    assert accepted() == 6


def test_a_job_that_failed_is_not_tried_again(
    server: ApiServer, settings: Settings, exchanges: RecordedExchanges, accepted: Callable[[], int]
) -> None:
    with (
        fake_worker(settings),
        openai_client(server.url, exchanges) as openai,
        pytest.raises(InternalServerError) as failed,
    ):
        openai.images.generate(prompt="a nan b", extra_headers=PATIENT)
    assert failed.value.code == "non_finite"
    assert len(exchanges.sent) == 1
    assert exchanges.answers[0].headers["x-should-retry"] == "false"
    assert accepted() == 1


def test_a_job_that_somebody_cancelled(
    openai: OpenAI, client: httpx2.Client, exchanges: RecordedExchanges, worker: ManualWorker
) -> None:
    def cancel() -> None:
        eventually(worker.queued_ids)
        client.delete(f"/jobs/{worker.queued_ids()[0]}")

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    with pytest.raises(ConflictError) as cancelled:
        openai.images.generate(**BODY, extra_headers=PATIENT)
    cancelling.join()
    assert cancelled.value.code == "job_cancelled"
    assert len(exchanges.sent) == 1, "409 would be tried again"


@pytest.mark.parametrize("is_asked", [False, True])
def test_leaving_cancels_only_where_that_was_asked(
    server: ApiServer,
    client: httpx2.Client,
    worker: ManualWorker,
    accepted: Callable[[], int],
    *,
    is_asked: bool,
) -> None:
    query = {"cancel_on_disconnect": "true"} if is_asked else {}
    with (
        openai_client(server.url, timeout=0.5, max_retries=0) as openai,
        pytest.raises(APITimeoutError),
    ):
        openai.images.generate(**BODY, extra_query=query, extra_headers=PATIENT)
    eventually(lambda: accepted() == 1)
    job_id = worker.newest_id()
    if is_asked:
        eventually(lambda: client.get(f"/jobs/{job_id}").json()["status"] == "cancelled")
    else:
        time.sleep(3 * POLL_SECONDS)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"


def test_a_cancelled_job_ends_its_stream(
    openai: OpenAI, client: httpx2.Client, settings: Settings
) -> None:
    with fake_worker(settings, step_seconds=0.1):
        stream = openai.images.generate(
            **BODY, stream=True, partial_images=3, extra_body={"steps": 100}
        )
        next(stream)
        assert client.delete(f"/jobs/{stream.response.headers['x-job-id']}").status_code == 202
        with pytest.raises(APIError) as failed:
            list(stream)
    assert failed.value.code == "job_cancelled"


def test_a_stream_that_is_left_cancels_only_where_that_was_asked(
    openai: OpenAI, client: httpx2.Client, worker: ManualWorker
) -> None:
    streams = [
        openai.images.generate(**BODY, stream=True, extra_query=query)
        for query in ({}, {"cancel_on_disconnect": "true"})
    ]
    kept, ended = (stream.response.headers["x-job-id"] for stream in streams)
    for stream in streams:
        stream.close()
    eventually(lambda: client.get(f"/jobs/{ended}").json()["status"] == "cancelled")
    assert client.get(f"/jobs/{kept}").json()["status"] == "queued"


def test_a_stream_over_the_time_of_calls_goes_on(openai: OpenAI, worker: ManualWorker) -> None:
    stream = openai.images.generate(**BODY, stream=True)
    time.sleep(0.6)
    (job_id,) = worker.queued_ids()
    worker.claim(job_id)
    worker.finish(job_id, PICTURE)
    (done,) = stream
    assert base64.b64decode(done.b64_json) == PICTURE
