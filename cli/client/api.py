"""Calls the HTTP API: one function for each thing that a command needs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from cli.client.connection import open_client, send, send_for_json, shown
from cli.client.errors import ClientError, ServiceAway
from cli.client.images import SavedImage, Target, save_images
from cli.client.jobs import follow, job_path, run_job, succeeded
from cli.client.progress import job_progress
from cli.output import command_line

_CAPABILITIES = {"name", "samplers", "schedulers", "loras", "workers"}
"""Fields of `GET /capabilities` that the client reads."""

_PAGE = 100


class Generated(NamedTuple):
    """The images of a job, what its warnings say, and its record."""

    images: list[SavedImage]
    warnings: list[str]
    job: Any

    def as_json(self) -> dict[str, Any]:
        """The job, with the paths of its files."""
        return {**self.job, "files": [image.as_json() for image in self.images]}


def generate(
    body: Mapping[str, Any],
    *,
    url: str,
    timeout: float,
    console: Console,
    out: Path | None = None,
    target: Target | None = None,
) -> Generated:
    """Run the request `body` at the service and save its images to `target`, or to `out`.

    An interrupt, and `timeout` seconds without a result, cancel the job.

    Raises:
        ClientError: the request is rejected, the job fails or takes too long, or an image cannot
            be saved.
    """
    with open_client(url) as client:
        job = run_job(client, "/generate", body, timeout=timeout, console=console)
        try:
            images = save_images(client, job["images"], target or Target(out))
        except ClientError as exc:
            again = command_line("download", job["id"], "--url", url)
            raise type(exc)(f"{exc}\n  its images are kept for now: {again}") from exc
        return Generated(images, [warning["detail"] for warning in job["warnings"]], job)


def submit(body: Mapping[str, Any], *, url: str) -> Any:
    """Submit a request without waiting for its job; the job."""
    with open_client(url) as client:
        return send_for_json(client, "POST", "/generate", json=body, timeout=30)


def dry_run(body: Mapping[str, Any], *, url: str) -> Any:
    """The plan of the service for the request `body`; nothing is queued.

    Raises:
        ClientError: the request is rejected, or nothing answers.
    """
    with open_client(url) as client:
        options = {"params": {"dry_run": "true"}, "json": body, "timeout": 30}
        return send_for_json(client, "POST", "/generate", **options)


def replay(job_id: str, *, url: str, timeout: float, console: Console) -> Any:
    """Run a job again; the finished job, with `matches`.

    Raises:
        ClientError: the job is rejected, fails or takes too long.
    """
    with open_client(url) as client:
        path = f"{job_path(job_id)}/replay"
        return run_job(client, path, None, timeout=timeout, console=console)


def jobs(url: str, *, status: str | None = None) -> Iterator[Any]:
    """The caller's jobs, newest first, read page by page."""
    params: dict[str, Any] = {"limit": _PAGE}
    if status is not None:
        params["status"] = status
    with open_client(url) as client:
        while True:
            page = send_for_json(client, "GET", "/jobs", params=params)
            yield from page["items"]
            if page["next"] is None:
                return
            params["cursor"] = page["next"]


def job(job_id: str, *, url: str) -> Any:
    """A job. Raises `ClientError` if there is none of this id, or nothing answers."""
    with open_client(url) as client:
        return send_for_json(client, "GET", job_path(job_id))


def watch(job_id: str, *, url: str, console: Console) -> Any:
    """Follow a job to its end; the job then. An interrupt does not affect the job."""
    with open_client(url) as client:
        found = send_for_json(client, "GET", job_path(job_id))
        with job_progress(console, found["request"]["num_images"]) as show:
            follow(client, found["id"], show=show)
        return send_for_json(client, "GET", job_path(job_id))


def cancel(job_id: str, *, url: str) -> Any:
    """Cancel a job. Raises `ClientError` if it has ended or does not exist."""
    with open_client(url) as client:
        return send_for_json(client, "DELETE", job_path(job_id))


def links(job_id: str, *, url: str) -> Any:
    """Signed URLs of a job."""
    with open_client(url) as client:
        return send_for_json(client, "POST", f"{job_path(job_id)}/links")


def download(job_id: str, target: Target, *, url: str) -> Sequence[SavedImage]:
    """Save the images of a job that succeeded.

    Raises:
        ClientError: it did not, or a file cannot be written.
    """
    with open_client(url) as client:
        found = send_for_json(client, "GET", job_path(job_id))
        if found["status"] in ("queued", "running"):
            raise ClientError(f"the job is {found['status']}; kirazuri show --watch waits for it")
        target.require_free(len(succeeded(found)["images"]))
        return save_images(client, found["images"], target)


def verify(data: bytes, *, url: str) -> Any:
    """The service's verdict on the bytes of an image file.

    Raises:
        ClientError: it is not an image, or nothing answers.
    """
    with open_client(url) as client:
        return send_for_json(client, "POST", "/verify", content=data, timeout=60)


def capabilities(url: str) -> Any:
    """The samplers, schedulers, LoRAs and workers of the service.

    Raises:
        ClientError: nothing answers, or another server does.
    """
    with open_client(url) as client:
        offered = send_for_json(client, "GET", "/capabilities")
    if not isinstance(offered, dict) or not set(offered) >= _CAPABILITIES:
        raise ServiceAway(f"{shown(url)} does not list its capabilities; is it this service?")
    return offered


def model_names(url: str) -> list[str]:
    """The names by which requests may call the checkpoint."""
    with open_client(url) as client:
        return [model["id"] for model in send_for_json(client, "GET", "/v1/models")["data"]]


def tags(prefix: str, *, limit: int, url: str) -> Any:
    """Tags that begin with `prefix`, or have an alias that does, by frequency."""
    with open_client(url) as client:
        params: dict[str, Any] = {"prefix": prefix, "limit": limit}
        return send_for_json(client, "GET", "/tags", params=params)["items"]


def readiness(url: str) -> tuple[list[str], list[str]]:
    """Why the service does not carry out jobs, and problems that do not stop them."""
    with open_client(url) as client:
        try:
            return [], send_for_json(client, "GET", "/readyz")["warnings"]
        except ServiceAway as exc:
            if exc.problem is None:
                raise
            return exc.problem.get("reasons") or [str(exc)], []


def metrics(url: str) -> str:
    """The metrics of the service, in Prometheus' text format."""
    with open_client(url) as client:
        return send(client, "GET", "/metrics").text
