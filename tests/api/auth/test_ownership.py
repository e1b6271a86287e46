"""Two keys on one service: no route lets one see or change what belongs to the other."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx2
import pytest
from PIL import Image
from redis import Redis
from ulid import ULID

from tests.support.api_keys import LISTENS_TO_ALL, make_key
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.settings import Settings

PROMPT = "1girl, a secret of alice"
UNKNOWN_IMAGE = "0" * 40 + ".png"


@dataclass(frozen=True)
class Alice:
    """A key with a queued, a running and a succeeded job, and an image."""

    client: httpx2.Client
    queued: str
    running: str
    succeeded: str
    image: str

    def job_ids(self) -> tuple[str, ...]:
        return (self.queued, self.running, self.succeeded)

    def secrets(self) -> tuple[str, ...]:
        return (*self.job_ids(), self.image, PROMPT)

    def jobs(self) -> list[Any]:
        """Her jobs, without the fields that change over time."""
        found = [self.client.get(f"/jobs/{job_id}").json() for job_id in self.job_ids()]
        for job in found:
            for changing in ("queue_position", "eta_seconds"):
                del job[changing]
        return found


def _picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (128, 128), "navy").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[ApiServer]:
    changes = {"listen": LISTENS_TO_ALL, "max_queue": 50, "sync_wait_seconds": 0.1}
    with ApiServer(settings.model_copy(update=changes)) as running:
        yield running


def _client(server: ApiServer, secret: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {secret}", "X-Request-Id": "same"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=60)


@pytest.fixture
def clients(server: ApiServer, redis_url: str) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    keys = [make_key("alice"), make_key("bob")]
    with Redis.from_url(redis_url) as connection:
        for _, key in keys:
            add_key(connection, key)
    with _client(server, keys[0][0]) as first, _client(server, keys[1][0]) as second:
        for client in (first, second):
            wait_until(lambda: client.get("/capabilities").status_code == 200)  # noqa: B023
        yield first, second


@pytest.fixture
def bob(clients: tuple[httpx2.Client, httpx2.Client]) -> httpx2.Client:
    return clients[1]


@pytest.fixture
def alice(clients: tuple[httpx2.Client, httpx2.Client], worker: ManualWorker) -> Alice:
    def submit(number: int) -> str:
        body = {"prompt": PROMPT, "seed": number}
        headers = {"Idempotency-Key": f"key-{number}"}
        answer = clients[0].post("/generate", json=body, headers=headers)
        return str(answer.json()["id"])

    succeeded, running, queued = submit(1), submit(2), submit(3)
    worker.claim(succeeded)
    (image,) = worker.finish(succeeded, _picture())
    worker.claim(running)
    return Alice(clients[0], queued, running, succeeded, image.name)


Call = dict[str, Any]

TEXT = {"type": "text", "text": "1girl"}
MASK_TOOL = {"type": "image_generation", "input_image_mask": {"image_url": "IMAGE"}}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "http://h/images/IMAGE?token=1.a.b"}}

CALLS: dict[tuple[str, str], list[Call]] = {
    ("POST", "/generate"): [
        {"json": {"prompt": "bob's", "seed": 3}, "headers": {"Idempotency-Key": "key-3"}},
        {"json": {"prompt": PROMPT[:5], "init_image": "IMAGE"}},
        {"json": {"prompt": PROMPT[:5], "init_image": "/images/IMAGE", "mask": "IMAGE"}},
        {"json": {"prompt": PROMPT[:5], "init_image": "IMAGE"}, "params": {"dry_run": True}},
    ],
    ("GET", "/jobs"): [{}, {"params": {"cursor": "JOB"}}, {"params": {"status": "succeeded"}}],
    ("GET", "/jobs/{job_id}"): [{}],
    ("DELETE", "/jobs/{job_id}"): [{}],
    ("POST", "/jobs/{job_id}/links"): [{}],
    ("POST", "/jobs/{job_id}/replay"): [{}, {"headers": {"Idempotency-Key": "key-1"}}],
    ("GET", "/jobs/{job_id}/events"): [
        {},
        {"headers": {"Last-Event-ID": "1-1"}},
        {"params": {"cancel_on_disconnect": True}},
    ],
    ("GET", "/images/{name}"): [{}, {"headers": {"If-None-Match": "*"}}],
    ("DELETE", "/images/{name}"): [{}],
    ("POST", "/verify"): [{"files": {"image": ("a.png", b"PICTURE")}}],
    ("POST", "/v1/images/generations"): [{"json": {"prompt": "IMAGE", "size": "JOB"}}],
    ("POST", "/v1/images/edits"): [
        {"data": {"prompt": "1girl", "size": "1x1"}, "files": {"image": ("a.png", b"PICTURE")}},
        {"data": {"prompt": "1girl", "image": "IMAGE"}},
        {"json": {"prompt": "1girl", "images": [{"image_url": "IMAGE"}]}},
        {"json": {"prompt": "1girl", "image": {"url": "http://h/images/IMAGE"}, "mask": "IMAGE"}},
    ],
    ("POST", "/v1/chat/completions"): [
        {"json": {"messages": [{"role": "user", "content": [TEXT, IMAGE_PART]}]}},
        {"json": {"messages": [{"role": "user", "content": "1girl"}], "init_image": "IMAGE"}},
    ],
    ("POST", "/v1/responses"): [
        {"json": {"input": [{"role": "user", "content": [TEXT, IMAGE_PART]}]}},
        {"json": {"input": "1girl", "previous_response_id": "resp_JOB", "init_image": "IMAGE"}},
        {"json": {"input": "1girl", "tools": [MASK_TOOL]}},
    ],
    ("GET", "/v1/models"): [{}],
    ("GET", "/v1/models/{model}"): [{}],
    ("POST", "/sdapi/v1/txt2img"): [{"json": {"steps": 0, "force_task_id": "JOB"}}],
    ("POST", "/sdapi/v1/img2img"): [
        {"json": {"init_images": ["IMAGE"]}},
        {"json": {"init_images": ["/images/IMAGE"], "mask": "IMAGE"}},
    ],
    ("GET", "/sdapi/v1/progress"): [{}, {"params": {"id_task": "JOB"}}],
    ("POST", "/sdapi/v1/interrupt"): [{}],
    ("POST", "/sdapi/v1/skip"): [{}],
    ("POST", "/sdapi/v1/options"): [{"json": {}}],
    ("POST", "/sdapi/v1/png-info"): [{"json": {"image": "IMAGE"}}],
    ("POST", "/sdapi/v1/extra-single-image"): [{"json": {"image": "IMAGE"}}],
    **{
        ("POST", f"/sdapi/v1/refresh-{what}"): [{}]
        for what in ("checkpoints", "vae", "loras", "embeddings")
    },
    ("POST", "/login"): [{}],
    ("GET", "/capabilities"): [{}],
    ("GET", "/problems/{code}"): [{}],
    ("GET", "/livez"): [{}],
    ("GET", "/readyz"): [{}],
    ("GET", "/metrics"): [{}],
}
"""How the second key tries each operation; JOB and IMAGE stand for the ids of the first."""


def _calls(method: str, path: str) -> list[Call]:
    """The calls of an operation; one without parameters and body needs no entry."""
    is_plain = method == "GET" and "{" not in path
    return CALLS.get((method, path), [{}] if is_plain else [])


def _filled(value: Any, job_id: str, image: str) -> Any:
    """The call with the ids filled in."""
    if isinstance(value, str):
        return value.replace("JOB", job_id).replace("IMAGE", image)
    if isinstance(value, bytes):
        return value.replace(b"PICTURE", _picture())
    if isinstance(value, dict):
        return {key: _filled(entry, job_id, image) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(entry, job_id, image) for entry in value)
    return value


def _answer(
    client: httpx2.Client, method: str, path: str, call: Call, names: tuple[str, str]
) -> Any:
    """Status, headers and body of a call, with the ids replaced by JOB and IMAGE."""
    job_id, image = names
    at = path.format(job_id=job_id, name=image, code="unauthorized", model="JOB")
    answer = client.request(method, at, **_filled(call, job_id, image))
    text = answer.text
    if answer.headers["content-type"].startswith("application/json"):
        text = json.dumps(_steady(answer.json()))
    headers = {name: answer.headers.get(name) for name in ("content-type", "etag", "location")}
    return answer.status_code, headers, text.replace(job_id, "JOB").replace(image, "IMAGE")


def _steady(body: Any) -> Any:
    """A body without values that differ between calls."""
    if isinstance(body, dict) and "created_at" in body:
        return {"prompt": body["request"]["prompt"], "status": body["status"]}
    if isinstance(body, dict) and body.keys() >= {"items", "next"}:
        return {"prompts": {job["request"]["prompt"] for job in body["items"]} - {"bob's"} or []}
    return body


def _operations(server: ApiServer) -> list[tuple[str, str]]:
    paths = server.app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_no_operation_shows_or_changes_foreign_jobs(
    alice: Alice, bob: httpx2.Client, server: ApiServer
) -> None:
    before = alice.jobs()
    operations = _operations(server)
    missing = [at for at in operations if not _calls(*at)]
    assert missing == [], "add calls of these operations to CALLS"
    assert set(CALLS) <= set(operations)
    for method, path in operations:
        for call in _calls(method, path):
            unknown = _answer(bob, method, path, call, (str(ULID()), UNKNOWN_IMAGE))
            is_of_jobs = "{job_id}" in path or "JOB" in json.dumps(call, default=str)
            for job_id in alice.job_ids() if is_of_jobs else alice.job_ids()[:1]:
                names = (job_id, alice.image)
                foreign = _answer(bob, method, path, call, names)
                if path not in (
                    "/metrics",
                    "/generate",
                ):  # metrics change, and a new job has a new id
                    assert foreign == unknown, (method, path, call)
                shown = foreign[2].replace("JOB", "").replace("IMAGE", "")
                assert [secret for secret in alice.secrets() if secret in shown] == []
    assert alice.jobs() == before
    listed = alice.client.get("/jobs").json()["items"]
    assert {job["id"] for job in listed} == set(alice.job_ids())
    assert alice.client.get(f"/images/{alice.image}").content == _picture()


def test_all_operations_but_the_public_ones_need_a_key(server: ApiServer) -> None:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        _refused_without_key(client, _operations(server))


def _refused_without_key(client: httpx2.Client, operations: list[tuple[str, str]]) -> None:
    public_paths = {"/livez", "/readyz", "/problems/{code}"}
    for method, path in operations:
        at = re.sub(r"\{.*?\}", "unauthorized", path)
        status = client.request(method, at, json={}).status_code
        assert (status == 401) is (path not in public_paths), (method, path)


def test_foreign_images_look_unknown(
    alice: Alice, bob: httpx2.Client, worker: ManualWorker
) -> None:
    answers = [
        bob.post("/generate", json={"prompt": "1girl", "init_image": name})
        for name in (alice.image, UNKNOWN_IMAGE)
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    first, second = (answer.text for answer in answers)
    assert first.replace(alice.image, "") == second.replace(UNKNOWN_IMAGE, "")
    own = alice.client.post("/generate", json={"prompt": "1girl", "init_image": alice.image})
    assert own.status_code == 202
    # A key that makes the same image has it too.
    job = bob.post("/generate", json={"prompt": "1girl"}).json()["id"]
    worker.claim(job)
    worker.finish(job, _picture())
    assert bob.get(f"/images/{alice.image}").content == _picture()
    assert bob.post("/generate", json={"prompt": "1girl", "init_image": alice.image}).is_success


def test_idempotency_keys_are_per_key(alice: Alice, bob: httpx2.Client) -> None:
    body = {"prompt": PROMPT, "seed": 3}
    headers = {"Idempotency-Key": "key-3"}
    other = bob.post("/generate", json=body, headers=headers)
    assert other.status_code == 202
    assert other.json()["id"] != alice.queued
    again = alice.client.post("/generate", json=body, headers=headers)
    assert again.json()["id"] == alice.queued


def test_pages_of_jobs(alice: Alice, bob: httpx2.Client) -> None:
    listed = alice.client.get("/jobs", params={"limit": 2})
    assert listed.headers["cache-control"] == "no-store"
    first = listed.json()
    assert [job["id"] for job in first["items"]] == [alice.queued, alice.running]
    rest = alice.client.get("/jobs", params={"limit": 2, "cursor": first["next"]}).json()
    assert [job["id"] for job in rest["items"]] == [alice.succeeded]
    assert rest["next"] is None
    assert rest["items"][0]["images"][0]["url"].endswith(alice.image)
    done = alice.client.get("/jobs", params={"status": "succeeded"}).json()
    assert [job["id"] for job in done["items"]] == [alice.succeeded]
    for wrong in ({"limit": 0}, {"limit": 101}, {"cursor": "x"}, {"status": "lost"}):
        assert alice.client.get("/jobs", params=wrong).status_code == 422
    assert bob.get("/jobs").json() == {"items": [], "next": None}


def test_signed_urls_of_one_key_do_not_open_jobs_of_another(
    alice: Alice, bob: httpx2.Client
) -> None:
    links = alice.client.post(f"/jobs/{alice.succeeded}/links").json()
    with httpx2.Client(timeout=60) as nobody:
        assert nobody.get(links["images"][0]).content == _picture()
        assert "event: succeeded" in nobody.get(links["events"]).text
    job = bob.post("/generate", json={"prompt": "1girl"}).json()["id"]
    token = bob.post(f"/jobs/{job}/links").json()["events"].partition("?token=")[2]
    with httpx2.Client(base_url=bob.base_url, timeout=60) as nobody:
        for path in (f"/images/{alice.image}", f"/jobs/{alice.succeeded}/events"):
            assert nobody.get(path, params={"token": token}).status_code == 401


def test_image_urls_of_the_openai_api_need_no_key(
    settings: Settings, redis_url: str, worker: ManualWorker
) -> None:
    secret, key = make_key("alice")
    with Redis.from_url(redis_url) as connection:
        add_key(connection, key)
    running = ApiServer(settings.model_copy(update={"listen": LISTENS_TO_ALL}))
    running.start()

    def work() -> None:
        wait_until(lambda: bool(worker.queued_ids()))
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, _picture())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        with _client(running, secret) as client, httpx2.Client(timeout=60) as nobody:
            body = {"prompt": "1girl", "response_format": "url"}
            (image,) = client.post("/v1/images/generations", json=body).json()["data"]
            assert nobody.get(image["url"]).content == _picture()
            assert nobody.get(image["url"].partition("?")[0]).status_code == 401
    finally:
        thread.join(60)
        running.stop()
