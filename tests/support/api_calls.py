"""What tests of the API ask again and again."""

import json
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from worker.settings import Settings


def is_problem(answer: httpx2.Response) -> dict[str, Any]:
    """The problem in an answer, checked against RFC 9457 and the project's own promises."""
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


def submit(client: httpx2.Client, **fields: object) -> str:
    answer = client.post("/generate", json={"prompt": PROMPT, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def secret(url: str) -> object:
    return Settings(_env_file=None, redis_url=url).redis_url


def read_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, with `data` parsed; comments and `retry` are left out."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":")
        )
        if "event" in fields:
            events.append({**fields, "data": json.loads(fields["data"])})
    return events


def metrics(client: httpx2.Client) -> dict[tuple[str, ...], float]:
    """Every sample as (name, label values sorted by label) -> value."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
