"""Submits jobs and follows them to their end; cancels them on an interrupt."""

import contextlib
import math
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from rich.console import Console

from cli.client.connection import raise_for_problem, send_for_json
from cli.client.errors import ClientError, NotFound
from cli.client.progress import ShowEvent, job_progress
from worker.job_events import TERMINAL_EVENTS

_RECONNECT_SECONDS = 0.5


def job_path(job_id: str) -> str:
    """The path of a job; `job_id` is what a person wrote.

    Raises:
        NotFound: no id is like this.
    """
    if not (job_id.isascii() and job_id.isalnum()):
        raise NotFound(f"{job_id!r} is not the id of a job; `kirazuri jobs` lists them")
    return f"/jobs/{job_id}"


def run_job(
    client: httpx2.Client,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    timeout: float,
    console: Console,
) -> Any:
    """Submit a job at `path` and follow it until it succeeds; its record then.

    An interrupt, and `timeout` seconds without an end, cancel the job.

    Raises:
        ClientError: the job is rejected, fails, is cancelled or takes too long.
    """
    deadline = time.monotonic() + timeout
    key = uuid.uuid4().hex
    try:
        job = submit(client, path, body, key)
    except KeyboardInterrupt:
        # The job may have been accepted already. The same idempotency key returns the same job.
        cancel_quietly(client, submit(client, path, body, key)["id"])
        raise
    try:
        with job_progress(console, job["request"]["num_images"]) as show:
            follow(client, job["id"], deadline=deadline, show=show)
    except BaseException:
        cancel_quietly(client, job["id"])
        raise
    return succeeded(send_for_json(client, "GET", job_path(job["id"])))


def submit(client: httpx2.Client, path: str, body: Mapping[str, Any] | None, key: str) -> Any:
    """Submit a job once, however often this is called with the same `key`; its record.

    Raises:
        ClientError: the job is rejected, or nothing answers.
    """
    headers = {"Idempotency-Key": key}
    return send_for_json(client, "POST", path, json=body, headers=headers, timeout=30)


def succeeded(job: Any) -> Any:
    """The job, if it succeeded; a `ClientError` says why it did not."""
    if job["status"] != "succeeded":
        reason = (job["error"] or {}).get("detail", "no reason was given")
        raise ClientError(f"the job {job['status']}: {reason}")
    return job


def cancel_quietly(client: httpx2.Client, job_id: str) -> bool:
    """Whether the job is cancelled: it may have ended, and the service may be gone."""
    with contextlib.suppress(httpx2.TransportError):
        return client.delete(job_path(job_id)).is_success
    return False


def follow(
    client: httpx2.Client, job_id: str, *, show: ShowEvent, deadline: float = math.inf
) -> None:
    """Pass the job's events to `show`, until the job has ended.

    Raises:
        ClientError: the deadline has passed, or the service rejects the request.
    """
    for event in _events(client, job_id, deadline=deadline):
        if event.data:  # the first one only says when to reconnect
            data: Any = event.json()
            show(event.event, data)


def _events(
    client: httpx2.Client, job_id: str, *, deadline: float
) -> Iterator[httpx2.ServerSentEvent]:
    """All events of the job. A connection that breaks is opened again after the last event."""
    headers: dict[str, str] = {}
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(httpx2.TransportError),
            client.sse(f"{job_path(job_id)}/events", headers=headers) as source,
        ):
            if not source.response.is_server_error:
                raise_for_problem(source.response)
                for event in source:
                    if event.id:
                        headers["Last-Event-ID"] = event.id
                    yield event
                    if event.event in TERMINAL_EVENTS:
                        return
                    if time.monotonic() > deadline:
                        break
        time.sleep(_RECONNECT_SECONDS)
    raise ClientError("the time limit has passed; the job is cancelled")
