"""Hostile JSON at every endpoint: refused early, with few errors, and first by the key's limits."""

import io
import itertools
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from redis import Redis

from api.http import error_handlers, field_errors, request_body
from api.http.problem import FieldError
from api.submit.submission_route import SubmissionRoute
from api.submit.submitter import _submitter
from tests.support.api_keys import bearer, make_key, status_with
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key

JSON = {"content-type": "application/json"}


def many(count: int) -> dict[str, int]:
    return {f"k{number}": number for number in range(count)}


@cache
def hostile_bodies() -> dict[str, bytes]:
    """JSON with too much of something, around a request with a prompt and an image."""
    base: dict[str, Any] = {"prompt": "1girl", "image": "x"}
    deep: Any = 0
    for _ in range(request_body.MAX_JSON_DEPTH + 1):
        deep = [deep]
    bodies = {
        "unknown keys": base | many(100_000),
        "unknown keys inside": base | {"hires": many(100_000)},
        "a free map": base | {"sampler_options": many(100_000)},
        "another free map": base | {"override_settings": many(100_000)},
        "scripts": base | {"alwayson_scripts": {"a": {"args": [{}] * 100_000}}},
        "empty objects": base | {"loras": [{}] * 100_000},
        "a prompt of texts": base | {"prompt": ["a"] * 100_000},
        "styles": base | {"styles": [1] * 100_000},
        "images": base | {"init_images": [[]] * 100_000, "images": [{}] * 100_000},
        "nested lists": base | {"tags": deep},
        "a list": [base] * 100_000,
    }
    return {name: json.dumps(body).encode() for name, body in bodies.items()}


WRONG_BUT_SMALL: dict[str, dict[str, Any]] = {
    "unknown keys": {"prompt": "1girl", **many(9_000)},
    "unknown keys inside": {"prompt": "1girl", "hires": many(4_000), "webhook": many(4_000)},
    "wrong tags": {"tags": {name: [1] * 100 for name in ("general", "artist", "meta", "series")}},
    "wrong LoRAs": {"prompt": "1girl", "loras": [{**many(1000)}] * 8},
    "wrong options": {"prompt": "1girl", "sampler_options": many(9_000)},
    "wrong styles": {"prompt": "1girl", "styles": [1] * 9_000},
    "wrong images": {"prompt": "1girl", "init_images": [1] * 9_000},
}
"""Below the limits of what is parsed, but with more errors than anybody can read."""

POSTS = (
    "/generate",
    "/generate?dry_run=true",
    "/v1/images/generations",
    "/v1/images/edits",
    "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img",
    "/sdapi/v1/png-info",
    "/sdapi/v1/extra-single-image",
    "/sdapi/v1/options",
    "/v1/chat/completions",
    "/v1/responses",
)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many errors each refusal had before any was left out."""
    counts: list[int] = []
    real = field_errors.field_errors

    def counting(errors: Any) -> list[FieldError]:
        counts.append(len(errors))
        return real(errors)

    monkeypatch.setattr(error_handlers, "field_errors", counting)
    return counts


def test_every_route_with_a_body_is_tried(server: ApiServer) -> None:
    paths = server.app.openapi()["paths"]
    with_json = {
        path
        for path, methods in paths.items()
        if "application/json" in methods.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert with_json <= {path.partition("?")[0] for path in POSTS}


@pytest.mark.parametrize("path", POSTS)
def test_a_body_with_too_much_is_refused_before_it_is_parsed(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def parse(*_: object, **__: object) -> None:
        raise AssertionError("the body was parsed")

    for name, content in hostile_bodies().items():
        with monkeypatch.context() as patch:
            patch.setattr("starlette.requests.json.loads", parse)
            answer = client.post(path, content=content, headers=JSON)
        assert answer.status_code == refusal_at(path), (name, answer.text[:300])
        assert "the JSON has more than" in answer.text, name
        assert len(answer.content) < 1000, name


def refusal_at(path: str) -> int:
    """The status of a refused body: OpenAI's API has 400 for all of them."""
    return 400 if path.startswith("/v1/") else 422


@pytest.mark.parametrize(
    "media_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/a b+json", None, "text/a"],
)
def test_the_declared_type_hides_nothing(client: httpx2.Client, media_type: str | None) -> None:
    body = b" \n" + hostile_bodies()["unknown keys"]
    headers = {} if media_type is None else {"content-type": media_type}
    for path in POSTS:
        answer = client.post(path, content=body, headers=headers)
        assert answer.status_code in (415, refusal_at(path)), path
        assert answer.status_code == 415 or "the JSON has more than" in answer.text
        assert len(answer.content) < 1000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be"])
def test_json_in_another_encoding_is_refused_before_it_is_parsed(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Python's parser reads these encodings too; their bytes would be counted as something else."""

    def parse(*_: object, **__: object) -> None:
        raise AssertionError("the body was parsed")

    text = " \n" * 5 + json.dumps(many(30_000) | {"Ģ": 1, "prompt": "1girl"}, ensure_ascii=False)
    body = text.encode(encoding)
    for path, headers in itertools.product(POSTS, ({}, JSON)):
        with monkeypatch.context() as patch:
            patch.setattr("starlette.requests.json.loads", parse)
            pieces = iter([body[:1], body[1:3], body[3:]])
            answer = client.post(path, content=pieces, headers=headers)
        assert answer.status_code in (400, 415, 422), (path, answer.text[:300])
        assert answer.status_code != 400 or "UTF-8" in answer.text, path


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_an_image_of_no_declared_type_is_not_taken_for_json(
    client: httpx2.Client, image_format: str
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, image_format)
    answer = client.post("/verify", content=file.getvalue())
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", POSTS[:6])
def test_at_most_a_hundred_errors_are_built(
    client: httpx2.Client, built: list[int], path: str
) -> None:
    for name, body in WRONG_BUT_SMALL.items():
        answer = client.post(path, json={**body, "steps": "many"})
        assert answer.status_code == refusal_at(path), name
        assert len(answer.content) < 60_000
    assert len(built) >= len(WRONG_BUT_SMALL)
    assert max(built) <= 100, built


def test_json_in_the_fields_of_a_form_counts_too(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over several fields, each below the limits."""

    def parse(*_: object, **__: object) -> None:
        raise AssertionError("the field was parsed")

    form = {"prompt": "1girl"}
    image = {"image": ("a.png", b"x")}
    for fields in (
        {"loras": json.dumps([{}] * 100_000)},
        {"sampler_options": json.dumps(many(40_000))},
        {"tags": "[" * 900},
    ):
        with monkeypatch.context() as patch:
            patch.setattr("api.openai.images.multipart.json.loads", parse)
            answer = client.post("/v1/images/edits", data={**form, **fields}, files=image)
        assert answer.status_code == 400
        assert "the JSON has more than" in answer.text, fields.keys()
    several = {f"k{number}": json.dumps([0] * 4_000) for number in range(4)}
    answer = client.post("/v1/images/edits", data={**form, **several}, files=image)
    assert "the JSON has more than" in answer.text
    quote = {"k0": '["', "k1": json.dumps([0] * 12_000)}
    answer = client.post("/v1/images/edits", data={**form, **quote}, files=image)
    assert "the JSON has more than" in answer.text, "an open quote in one field hides no other"


def test_the_answer_says_how_many_errors_there_are(client: httpx2.Client) -> None:
    unknown = client.post("/generate", json=WRONG_BUT_SMALL["unknown keys"]).json()
    assert unknown["detail"] == "9000 fields are wrong; the first 100 are listed"
    assert [error["pointer"] for error in unknown["errors"]] == [f"/k{n}" for n in range(100)]
    tags = client.post("/generate", json=WRONG_BUT_SMALL["wrong tags"]).json()
    assert tags["detail"] == "400 fields are wrong"
    (error,) = tags["errors"]
    assert error["detail"].startswith("400 values are wrong; send fewer of them")


SUBMISSIONS = (*POSTS[:8], "/verify", "/jobs/01JD6Z1Q8M4T0V7C2N5K9R3XWB/replay")


@pytest.mark.parametrize("path", SUBMISSIONS)
def test_the_limits_of_a_key_come_before_its_body(
    public_client: httpx2.Client, redis_client: "Redis", path: str
) -> None:
    """Also a body that is invalid, or too much, is not looked at, and counts."""
    secrets: list[str] = []
    some_limits: list[dict[str, Any]] = [{"concurrency": 0}, {"rate": "2/hour"}]
    for limits in some_limits:
        secret, key = make_key(f"key{len(secrets)}", **limits)
        add_key(redis_client, key)
        secrets.append(secret)
    wait_until(lambda: all(status_with(public_client, bearer(s)) == 200 for s in secrets))
    idle, slow = secrets
    for body in (b"not JSON", b"[" * 300_000, json.dumps({"prompt": 1}).encode()):
        refused = public_client.post(path, content=body, headers={**JSON, **bearer(idle)})
        assert refused.status_code == 403, refused.text
        assert "key_forbids" in refused.text or "allows no submissions" in refused.text
    statuses = [
        public_client.post(path, content=body, headers={**JSON, **bearer(slow)}).status_code
        for body in (b"not JSON", b"[" * 300_000, b"not JSON", b"[" * 300_000)
    ]
    assert statuses[2:] == [429, 429]
    assert 429 not in statuses[:2]


def test_every_route_that_submits_checks_the_key_first(server: ApiServer) -> None:
    def calls_in(dependant: Any) -> Iterator[Any]:
        yield dependant.call
        for inner in dependant.dependencies:
            yield from calls_in(inner)

    def routes_in(holder: Any) -> Iterator[APIRoute]:
        for route in holder.routes:
            if isinstance(route, APIRoute):
                yield route
            elif (router := getattr(route, "original_router", None)) is not None:
                yield from routes_in(router)

    submitting = [r for r in routes_in(server.app) if _submitter in calls_in(r.dependant)]
    assert len(submitting) >= 6
    # Most calls of these submit nothing; they count when they do.
    others = {route.path for route in submitting if not isinstance(route, SubmissionRoute)}
    assert others <= {"/mcp", "/v1/chat/completions", "/v1/responses"}
