"""Calls the API and reads its replies."""

import json
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from worker.settings import Settings


def read_problem(answer: httpx2.Response) -> dict[str, Any]:
    """The problem of an error response; checks the fields that RFC 9457 and the API promise."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"/problems/{problem['code']}"
    assert problem["instance"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in answer.text
    return problem


PROMPT = "masterpiece, best quality, 1girl, blue hair, red eyes, smile"


def submit_job(client: httpx2.Client, **fields: object) -> str:
    """Submit a job with these fields and return its id."""
    answer = client.post("/generate", json={"prompt": PROMPT, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def redis_setting(url: str) -> object:
    """`url` as the value of `Settings.redis_url`."""
    return Settings(_env_file=None, redis_url=url).redis_url


def parse_events(text: str) -> list[dict[str, Any]]:
    """The events of an event stream with parsed `data`, without comments and `retry`."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":")
        )
        if "event" in fields:
            events.append({**fields, "data": json.loads(fields["data"])})
    return events


def read_metrics(client: httpx2.Client) -> dict[tuple[str, ...], float]:
    """Every sample of `/metrics`: (name, label values sorted by label name) -> value."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
