"""Calls the HTTP API: generate, dry run, replay, verify, capabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rich.console import Console

from cli.client.connection import open_client, send_for_json
from cli.client.errors import ClientError
from cli.client.images import SavedImage, save_images
from cli.client.jobs import run_job

_CAPABILITIES = {"name", "samplers", "schedulers", "loras", "workers"}
"""Fields of `GET /capabilities` that the client reads."""


class Generated(NamedTuple):
    """The images of a job, and what its warnings say."""

    images: list[SavedImage]
    warnings: list[str]


def generate(
    body: Mapping[str, Any], *, url: str, out: Path | None, timeout: float, console: Console
) -> Generated:
    """Run the request `body` at the service and save its images to the file or folder `out`.

    An interrupt, and `timeout` seconds without a result, cancel the job.

    Raises:
        ClientError: the request is rejected, the job fails or takes too long, or an image cannot
            be saved.
    """
    with open_client(url) as client:
        job = run_job(client, "/generate", body, timeout=timeout, console=console)
        images = save_images(client, job["images"], out)
        return Generated(images, [warning["detail"] for warning in job["warnings"]])


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
        path = f"/jobs/{quote(job_id, safe='')}/replay"
        return run_job(client, path, None, timeout=timeout, console=console)


def verify(file: Path, *, url: str) -> Any:
    """The service's verdict on an image file.

    Raises:
        ClientError: the file cannot be read or is not an image, or nothing answers.
    """
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise ClientError(f"cannot read {file}: {exc.strerror}") from exc
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
        raise ClientError(f"{url} does not list its capabilities; is it this service?")
    return offered
