"""Calls the A1111 API as its clients do, and reads its replies."""

import base64
from typing import Any

import httpx2
from redis import Redis

from worker.queue.layout.redis_keys import client_key

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
NO_WAIT = {"prefer": "wait=0"}
FILE = b"\x89PNG not really"
"""Stands for an image file; the API passes files on without reading them."""


def basic_auth(name_and_password: str) -> dict[str, str]:
    """The header of HTTP Basic authentication."""
    return {"authorization": "Basic " + base64.b64encode(name_and_password.encode()).decode()}


def read_a1111_error(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error response; checks its status, code and format."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()
    assert set(error) == {"error", "detail", "body", "errors", "job_id"}
    assert error["error"] == code
    return error


def read_progress(client: httpx2.Client, headers: dict[str, str] | None = None) -> dict[str, Any]:
    response = client.get("/sdapi/v1/progress", headers=headers or {})
    assert response.status_code == 200
    progress: dict[str, Any] = response.json()
    return progress


def is_idle(progress: dict[str, Any]) -> bool:
    return bool(progress["progress"] == 0 and progress["state"]["job_count"] == 0)


def index_score(redis: "Redis", job_id: str) -> float | None:
    """The score of a job in the index of its client; negative once its caller has disconnected."""
    scores: list[Any] = [redis.zscore(key, job_id) for key in redis.scan_iter(client_key("*"))]
    return next((float(score) for score in scores if score is not None), None)
