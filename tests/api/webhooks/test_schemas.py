"""Webhooks in requests: validation, idempotency, settings."""

import json
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from api.webhooks.schemas import submission_type
from model.card import load_card
from tests.support.api_calls import PROMPT, read_problem
from tests.support.api_server import ApiServer
from tests.support.webhooks import SECRET
from worker.settings import Settings

INVALID: list[tuple[Any, str, str]] = [
    ({"url": "https://10.0.0.1/"}, "/webhook/url", "not a public address"),
    ({"url": "http://127.0.0.2/"}, "/webhook/url", "not a public address"),
    ({"url": "http://0x7f000002/"}, "/webhook/url", "not a public address"),
    ({"url": "http://[::1]/"}, "/webhook/url", "not a public address"),
    ({"url": "ftp://example.org/"}, "/webhook/url", "begin with https:// or http://"),
    ({"url": "https://user:word@example.org/"}, "/webhook/url", "user name and password"),
    ({"url": "https://" + "a" * 2000}, "/webhook/url", "at most 2000"),
    ({"url": "https://exa\x00mple.org/"}, "/webhook/url", "not a URL"),
    ({"url": "https://\ud800.org/"}, "/webhook/url", "unicode"),
    ({"url": ""}, "/webhook/url", "at least 1"),
    ({"url": None}, "/webhook/url", "string"),
    ({}, "/webhook/url", "required"),
    ({"url": "https://a.b/", "events": []}, "/webhook/events", "at least 1"),
    ({"url": "https://a.b/", "events": ["progress"]}, "/webhook/events/0", "'started'"),
    ({"url": "https://a.b/", "events": ["failed"] * 5}, "/webhook/events", "at most 4"),
    ({"url": "https://a.b/", "events": "failed"}, "/webhook/events", "list"),
    ({"url": "https://a.b/", "secret": "x"}, "/webhook/secret", "unknown field"),
    ("https://a.b/", "/webhook", "object"),
]


def test_invalid_webhooks(client: httpx2.Client) -> None:
    wrong = []
    for webhook, pointer, reason in INVALID:
        body = json.dumps({"prompt": PROMPT, "webhook": webhook})
        answer = client.post(
            "/generate", content=body, headers={"content-type": "application/json"}
        )
        errors = read_problem(answer)["errors"] if answer.status_code == 422 else []
        found = [(error["pointer"], reason in error["detail"]) for error in errors]
        if found != [(pointer, True)]:
            wrong.append((webhook, answer.status_code, errors))
    assert wrong == []


def test_no_webhooks_without_a_secret(settings: Settings, redis_url: str) -> None:
    with (
        ApiServer(settings.model_copy(update={"webhook_secret": None})) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        body = {"prompt": PROMPT, "webhook": {"url": "https://example.org/"}}
        answer = client.post("/generate", json=body)
        assert answer.status_code == 422
        (error,) = read_problem(answer)["errors"]
        assert error["pointer"] == "/webhook"
        assert "KIRAZURI_WEBHOOK_SECRET" in error["detail"]
        job = client.post("/generate", json={"prompt": PROMPT, "webhook": None}).json()
        assert job["webhook"] is None
        assert client.get("/capabilities").json()["features"]["webhooks"] is False


def test_another_webhook_makes_another_request(client: httpx2.Client) -> None:
    def post(url: str) -> httpx2.Response:
        body = {"prompt": PROMPT, "webhook": {"url": url}}
        return client.post("/generate", json=body, headers={"idempotency-key": "k"})

    first = post("https://a.example/")
    assert post("https://a.example/").json()["id"] == first.json()["id"]
    assert read_problem(post("https://b.example/"))["code"] == "idempotency_conflict"


def test_invalid_settings() -> None:
    for name, value, reason in (
        ("webhook_secret", "secret", "whsec_"),
        ("webhook_secret", "whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("webhook_secret", f"{SECRET} whsec_{'-' * 32}", "24 to 64 bytes"),
        ("webhook_networks", "10.0.0.1/8", "not a network, number 1"),
        ("webhook_networks", "10.0.0.0/8,intranet", "not a network, number 2"),
        ("webhook_retry_seconds", "5,soon", "must be numbers"),
        ("webhook_retry_seconds", "-1", "at least 0"),
        ("webhook_retry_seconds", "600000", "518400"),
    ):
        with pytest.raises(ValueError, match=reason):
            Settings.model_validate({name: value})


def test_default_schedule_is_that_of_standard_webhooks() -> None:
    delays = Settings(_env_file=None).webhook_retry_seconds
    hours = [int(part) / 3600 for part in delays.split(",")]
    assert hours == [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 10]


def test_a_url_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> None:
        raise AssertionError("the URL was parsed")

    monkeypatch.setattr("api.webhooks.schemas.url_problem", look)
    settings = Settings(_env_file=None, webhook_secret=SECRET)
    request = submission_type(load_card("kirazuri-tiny"), settings)
    body = {"prompt": "a", "webhook": {"url": "https://" + "a" * 1_000_000}}
    with pytest.raises(ValidationError, match="at most 2000 characters"):
        request.model_validate(body)
