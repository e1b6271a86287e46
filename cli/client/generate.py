"""A client of the service: submit a request, show its progress, save the pictures."""

import contextlib
import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.output import read_settings
from worker.job_events import TERMINAL_EVENTS

_SILENCE_SECONDS = 5.0
"""A stream silent for so long is opened anew, which is when the time limit is looked at."""

_PAUSE_SECONDS = 0.5
"""Between tries to reach a service that is away for a moment."""

_SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg", "avif": ".avif"}
_FORMATS = {suffix: name for name, suffix in _SUFFIXES.items()} | {".jpeg": "jpeg"}

_NEEDED = {"name", "samplers", "schedulers", "loras", "workers"}
"""Of a service's capabilities."""


class GenerationError(Exception):
    """No picture was made; the message says why, with one line for every wrong field."""


@dataclass(frozen=True, slots=True)
class SavedImage:
    """A picture on the disk, and where the service has it."""

    path: Path
    seed: int
    url: str


def format_of(out: Path | None) -> str | None:
    """The image format that a file's name asks for; None for a folder or no name.

    Raises:
        GenerationError: the ending is none of a picture that the service makes.
    """
    if out is None or out.is_dir() or not out.suffix:
        return None
    if out.suffix.lower() not in _FORMATS:
        raise GenerationError(f"--out {out}: the ending must be one of {', '.join(_FORMATS)}")
    return _FORMATS[out.suffix.lower()]


def lora_choice(text: str) -> dict[str, Any]:
    """One of a request's `loras` from NAME or NAME:WEIGHT.

    Raises:
        GenerationError: the weight is no number.
    """
    name, colon, weight = text.partition(":")
    try:
        return {"name": name, "weight": float(weight)} if colon else {"name": name}
    except ValueError as exc:
        raise GenerationError(f"--lora {text}: {weight!r} is no weight; write NAME:0.8") from exc


def options_of(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Options of the sampler from NAME=VALUE; what is no JSON value is a string.

    Raises:
        GenerationError: a pair without its "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator:
            raise GenerationError(f"--sampler-option {pair}: must be NAME=VALUE")
        options[name] = _json_or_text(value)
    return options or None


def _json_or_text(value: str) -> Any:
    """JSON has no infinity and no NaN: such words go to the service as they are."""
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        return value
    return read if not isinstance(read, float) or math.isfinite(read) else value


def generate(
    body: Mapping[str, Any], *, url: str, out: Path | None, timeout: float, console: Console
) -> list[SavedImage]:
    """Have the service at `url` carry out the request `body`, and save its pictures at `out`.

    An interrupt or `timeout` seconds without a result cancel the job.

    Raises:
        GenerationError: refused, failed, cancelled or too late.
    """
    with _client(url) as client:
        job = _carry_out(client, "/generate", body, timeout=timeout, console=console)
        return _save(client, job["images"], out)


def plan(body: Mapping[str, Any], *, url: str) -> Any:
    """What the service at `url` says that the request `body` would become; nothing is queued.

    Raises:
        GenerationError: the request is refused, or nothing answers.
    """
    with _client(url) as client:
        options = {"params": {"dry_run": "true"}, "json": body, "timeout": 30}
        return _json(_call(client, "POST", "/generate", **options))


def replay(job_id: str, *, url: str, timeout: float, console: Console) -> Any:
    """Have the service at `url` run a job again; the finished job, with `matches`.

    Raises:
        GenerationError: refused, failed, cancelled or too late.
    """
    with _client(url) as client:
        path = f"/jobs/{quote(job_id, safe='')}/replay"
        return _carry_out(client, path, None, timeout=timeout, console=console)


def verify(file: Path, *, url: str) -> Any:
    """What the service at `url` knows of an image.

    Raises:
        GenerationError: the file cannot be read, is no image, or nothing answers.
    """
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise GenerationError(f"cannot read {file}: {exc.strerror}") from exc
    with _client(url) as client:
        return _json(_call(client, "POST", "/verify", content=data, timeout=60))


def capabilities(url: str) -> Any:
    """What the service at `url` offers.

    Raises:
        GenerationError: nothing answers there, or not this service.
    """
    with _client(url) as client:
        offered = _json(_call(client, "GET", "/capabilities"))
    if not isinstance(offered, dict) or not set(offered) >= _NEEDED:
        raise GenerationError(f"{url} does not say what it offers; is it this service?")
    return offered


def _carry_out(
    client: httpx2.Client,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    timeout: float,
    console: Console,
) -> Any:
    """Submit a job and follow it to its success; it is cancelled where that does not come."""
    deadline = time.monotonic() + timeout
    key = uuid.uuid4().hex
    try:
        job = _submit(client, path, body, key)
    except KeyboardInterrupt:
        # It may have been accepted already: the same key gives the same job.
        _cancel(client, _submit(client, path, body, key)["id"])
        raise
    try:
        _follow(client, job["id"], deadline=deadline, console=console)
    except BaseException:
        _cancel(client, job["id"])
        raise
    job = _json(_call(client, "GET", f"/jobs/{job['id']}"))
    if job["status"] != "succeeded":
        reason = (job["error"] or {}).get("detail", "no reason was given")
        raise GenerationError(f"the job {job['status']}: {reason}")
    return job


def _client(url: str) -> httpx2.Client:
    """A client of the service, with the key of the settings; to this machine without a proxy."""
    key = read_settings().api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else None
    waits = httpx2.Timeout(10, read=_SILENCE_SECONDS)
    try:
        is_local = httpx2.URL(url).host in ("localhost", "127.0.0.1", "::1")
        return httpx2.Client(base_url=url, headers=headers, timeout=waits, trust_env=not is_local)
    except httpx2.InvalidURL as exc:
        raise GenerationError(f"--url {url}: {exc}") from exc


def _submit(client: httpx2.Client, path: str, body: Mapping[str, Any] | None, key: str) -> Any:
    headers = {"Idempotency-Key": key}
    return _json(_call(client, "POST", path, json=body, headers=headers, timeout=30))


def _cancel(client: httpx2.Client, job_id: str) -> None:
    """Best effort: a job that has ended, or a service that is gone, is no news any more."""
    try:
        client.delete(f"/jobs/{job_id}")
    except httpx2.TransportError:
        return


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
    """All events of the job, over as many connections as that takes.

    Raises:
        GenerationError: the time is over, or the service refuses to tell.
    """
    headers: dict[str, str] = {}
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(httpx2.TransportError),
            client.sse(f"/jobs/{job_id}/events", headers=headers) as source,
        ):
            if not source.response.is_server_error:
                _check(source.response)
                for event in source:
                    if event.id:
                        headers["Last-Event-ID"] = event.id
                    yield event
                    if event.event in TERMINAL_EVENTS:
                        return
                    if time.monotonic() > deadline:
                        break
        time.sleep(_PAUSE_SECONDS)
    raise GenerationError("the time limit is over; the job is cancelled")


def _save(
    client: httpx2.Client, images: Sequence[Mapping[str, Any]], out: Path | None
) -> list[SavedImage]:
    saved = []
    for index, image in enumerate(images):
        path = _path(out, image, index if len(images) > 1 else None)
        # Where images are in a bucket, the service answers with a URL that is signed for it.
        content = _call(client, "GET", image["url"], timeout=60, follow_redirects=True).content
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as exc:
            raise GenerationError(f"cannot write {path}: {exc.strerror}") from exc
        saved.append(SavedImage(path, image["seed"], image["url"]))
    return saved


def _path(out: Path | None, image: Mapping[str, Any], index: int | None) -> Path:
    """`out` itself, numbered if there are several; in a folder a name made of the seed."""
    suffix = _SUFFIXES[image["format"]]
    if out is None or out.is_dir() or not out.suffix:
        return (out or Path()) / f"kirazuri-{image['seed']}{suffix}"
    return out if index is None else out.with_stem(f"{out.stem}-{index}")


def _call(client: httpx2.Client, method: str, url: str, **options: Any) -> httpx2.Response:
    try:
        response = client.request(method, url, **options)
    except httpx2.TransportError as exc:
        raise GenerationError(
            f"nothing answers at {client.base_url} ({exc}); start the service with `kirazuri up`"
        ) from exc
    _check(response)
    return response


def _check(response: httpx2.Response) -> None:
    """Turn a problem (RFC 9457) into an error that names every wrong field."""
    if response.is_success:
        return
    response.read()
    problem = _json(response)
    if not isinstance(problem, dict) or "title" not in problem:
        raise GenerationError(f"{response.url} answered {response.status_code}")
    fields = (
        f"\n  {error['pointer'].strip('/') or 'request'}: {error['detail']}"
        for error in problem.get("errors", [])
    )
    hint = "\n  set it in KIRAZURI_API_KEY" if response.status_code == 401 else ""
    raise GenerationError(f"{problem['title']}: {problem.get('detail', '')}{''.join(fields)}{hint}")


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as exc:
        raise GenerationError(
            f"{response.url} answered {response.status_code} without JSON; is it this service?"
        ) from exc
