"""Runs a job: submits it, shows its progress, waits for its end, cancels it on an interrupt."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.client.connection import raise_for_problem, send_for_json
from cli.client.errors import ClientError
from worker.job_events import TERMINAL_EVENTS

_RECONNECT_SECONDS = 0.5


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
        job = _submit(client, path, body, key)
    except KeyboardInterrupt:
        # The job may have been accepted already. The same idempotency key returns the same job.
        _cancel(client, _submit(client, path, body, key)["id"])
        raise
    try:
        _follow(client, job["id"], deadline=deadline, console=console)
    except BaseException:
        _cancel(client, job["id"])
        raise
    job = send_for_json(client, "GET", f"/jobs/{job['id']}")
    if job["status"] != "succeeded":
        reason = (job["error"] or {}).get("detail", "no reason was given")
        raise ClientError(f"the job {job['status']}: {reason}")
    return job


def _submit(client: httpx2.Client, path: str, body: Mapping[str, Any] | None, key: str) -> Any:
    headers = {"Idempotency-Key": key}
    return send_for_json(client, "POST", path, json=body, headers=headers, timeout=30)


def _cancel(client: httpx2.Client, job_id: str) -> None:
    """Best effort: the job may have ended, and the service may be gone."""
    with contextlib.suppress(httpx2.TransportError):
        client.delete(f"/jobs/{job_id}")


def _follow(client: httpx2.Client, job_id: str, *, deadline: float, console: Console) -> None:
    """Show the job's events until the terminal one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("queued", total=1)
        for event in _events(client, job_id, deadline=deadline):
            _show(bar, task, event)


def _show(bar: Progress, task: TaskID, event: httpx2.ServerSentEvent) -> None:
    if event.event == "progress":
        data: Any = event.json()
        bar.update(task, description="sampling", completed=data["step"], total=data["steps"])
    elif event.event in ("queued", "started", "retrying"):
        bar.update(task, description=event.event)


def _events(
    client: httpx2.Client, job_id: str, *, deadline: float
) -> Iterator[httpx2.ServerSentEvent]:
    """All events of the job. A connection that breaks is opened again after the last event.

    Raises:
        ClientError: the deadline has passed, or the service rejects the request.
    """
    headers: dict[str, str] = {}
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(httpx2.TransportError),
            client.sse(f"/jobs/{job_id}/events", headers=headers) as source,
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
