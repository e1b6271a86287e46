"""Calls of chats are ordinary jobs: time limit, retries, keys, policy and clients that leave."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from tests.support.api_keys import bearer, make_key, wait_for_keys
from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import openai_client, read_openai_error
from tests.support.pending_call import PendingCall
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.job_errors import job_error
from worker.redis_io.client import connect
from worker.settings import Settings

PROMPT = "1girl, blue hair, smile, hair bow"
FILE = encode_file(draw_image())
LONG_WAIT = {"Prefer": "wait=60"}
Body = Callable[[str], dict[str, Any]]


def chat(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}]}


def response(prompt: str) -> dict[str, Any]:
    return {"input": prompt}


def generation(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt}


DOORS = [("/v1/chat/completions", chat), ("/v1/responses", response)]
each_door = pytest.mark.parametrize(("path", "body"), DOORS)


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"sync_wait_seconds": 0.2, "max_wait_seconds": 60})


def finish(worker: ManualWorker, job_id: str) -> None:
    worker.claim(job_id)
    worker.finish(job_id, FILE)


def status(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


@each_door
def test_a_late_job_is_named_and_found_by_the_retry(
    client: httpx2.Client, worker: ManualWorker, path: str, body: Body
) -> None:
    first, again = ({"x-stainless-retry-count": count} for count in "01")
    late = client.post(path, json=body(PROMPT), headers=first)
    error = read_openai_error(late, 504)
    (job_id,) = worker.queued_ids()
    assert error["job_id"] == late.headers["x-job-id"] == job_id
    finish(worker, job_id)
    found = client.post(path, json=body(PROMPT), headers=again)
    assert (found.status_code, found.json()["job_id"]) == (200, job_id)
    assert found.headers["location"] == f"/jobs/{job_id}"
    delivered = client.post(path, json=body(PROMPT), headers=again)
    assert delivered.headers["x-job-id"] != job_id


@each_door
def test_idempotency_key_and_deadline(
    client: httpx2.Client, worker: ManualWorker, path: str, body: Body
) -> None:
    headers = {"Idempotency-Key": "a", "Cancel-After": "1s"}
    ids = {client.post(path, json=body(PROMPT), headers=headers).headers["x-job-id"] for _ in "ab"}
    assert len(ids) == 1
    other = client.post(path, json=body("1boy"), headers=headers)
    assert read_openai_error(other, 422)["code"] == "idempotency_conflict"
    refused = client.post(path, json=body(PROMPT), headers={"Cancel-After": "never"})
    assert read_openai_error(refused, 400)["message"]


@each_door
def test_disconnecting_cancels_only_calls_that_ask_for_it(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker, path: str, body: Body
) -> None:
    ids: list[str] = []
    for seed, query in enumerate(("", "?cancel_on_disconnect=true")):
        sent = {**body(PROMPT), "seed": seed}  # the same call would find the first job
        call = PendingCall(server.url, path + query, sent, LONG_WAIT)
        wait_until(lambda: set(worker.queued_ids()) - set(ids))
        (new,) = set(worker.queued_ids()) - set(ids)
        ids.append(new)
        call.disconnect()
    kept, ended = ids
    wait_until(lambda: status(client, ended) == "cancelled")
    assert status(client, kept) == "queued"


@each_door
def test_closing_a_stream_cancels_only_jobs_that_ask_for_it(
    client: httpx2.Client, worker: ManualWorker, path: str, body: Body
) -> None:
    ids = []
    for seed, query in enumerate(({}, {"cancel_on_disconnect": "true"})):
        sent = {**body(PROMPT), "stream": True, "seed": seed}
        with client.stream("POST", path, json=sent, params=query) as stream:
            ids.append(stream.headers["x-job-id"])
            next(stream.iter_bytes())  # the beginning comes before the job ends
    kept, ended = ids
    wait_until(lambda: status(client, ended) == "cancelled")
    assert status(client, kept) == "queued"
    finish(worker, kept)
    assert status(client, kept) == "succeeded"


@pytest.mark.parametrize(("path", "body"), [*DOORS, ("/v1/images/generations", generation)])
def test_events_have_only_ascii(
    client: httpx2.Client, worker: ManualWorker, path: str, body: Body
) -> None:
    """Many clients split a text at U+2028 and U+0085, too, which would cut an event in two."""
    with client.stream("POST", path, json={**body(PROMPT), "stream": True}) as stream:
        job_id = stream.headers["x-job-id"]
        worker.claim(job_id)
        error = job_error("lora_missing", "no LoRA named 'é\x85\u2028'")
        worker.end(job_id, "failed", error=error)
        sent = stream.read()
    assert b"\\u00e9\\u0085\\u2028" in sent
    assert sent.isascii()


@each_door
def test_a_cancelled_job_ends_its_stream(
    server: ApiServer, client: httpx2.Client, path: str, body: Body
) -> None:
    with client.stream("POST", path, json={**body(PROMPT), "stream": True}) as stream:
        client.delete(f"/jobs/{stream.headers['x-job-id']}")
        text = stream.read().decode()
    assert '"job_cancelled"' in text
    assert "[DONE]" not in text


@each_door
def test_full_queue_says_when_to_retry(
    client: httpx2.Client, settings: Settings, path: str, body: Body
) -> None:
    for number in range(settings.max_queue):
        client.post("/generate", json={"prompt": "1girl", "seed": number})
    full = client.post(path, json=body(PROMPT))
    assert read_openai_error(full, 429)["code"] == "queue_full"
    assert int(full.headers["retry-after"]) > 0


# -- with keys -------------------------------------------------------------------------------------


@pytest.fixture
def secrets(client: httpx2.Client, redis_url: str) -> list[str]:
    """Secrets of a key for safe images and of one that may submit nothing."""
    made = [make_key("safe", max_rating="safe"), make_key("none", concurrency=0)]
    with connect(redis_url) as connection:
        for _, key in made:
            assert add_key(connection, key)
    secrets = [secret for secret, _ in made]
    wait_for_keys(client, *secrets)
    return secrets


@each_door
def test_policy_and_limits_of_the_key_apply(
    client: httpx2.Client, secrets: list[str], path: str, body: Body
) -> None:
    safe, none = map(bearer, secrets)
    blocked = client.post(path, json={**body("1girl, nsfw, nude"), "stream": True}, headers=safe)
    error = read_openai_error(blocked, 403)
    assert (error["code"], error["rule"]) == ("policy_blocked", "max_rating")
    for prompt in (PROMPT, "Write a short title for this chat.", ""):  # also texts, and before all
        forbidden = client.post(path, json=body(prompt), headers=none)
        assert read_openai_error(forbidden, 403)["code"] == "key_forbids"
    assert read_openai_error(client.post(path, json=body(PROMPT)), 401)["code"] == "invalid_api_key"


def test_urls_of_a_chat_need_no_key(
    server: ApiServer, secrets: list[str], worker: ManualWorker
) -> None:
    with openai_client(server.url, key=secrets[0]) as openai:
        content = _answered(openai, worker)
    url = content.partition("](")[2].removesuffix(")")
    assert "?token=" in url
    assert httpx2.get(url, timeout=60).content == FILE


def _answered(openai: OpenAI, worker: ManualWorker) -> str:
    stream: Any = openai.chat.completions.create(
        model="kirazuri-tiny", messages=[{"role": "user", "content": PROMPT}], stream=True
    )
    finish(worker, stream.response.headers["x-job-id"])
    parts = [choice.delta.content for chunk in stream for choice in chunk.choices]
    return "".join(part for part in parts if part)
