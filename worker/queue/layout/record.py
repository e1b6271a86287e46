"""Writes the record of a new job and reads records as `Job`."""

import json
import time
from collections.abc import Mapping
from typing import Any, cast, get_args

from ulid import ULID

from model.recipes.recipe import Recipe, recipe_differences
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps, total_steps
from worker.auth.api_keys import Priority
from worker.job import (
    NO_CARD,
    SCHEMA_VERSION,
    Checkpoint,
    Job,
    JobError,
    JobWarning,
    Progress,
    Status,
    StoredImage,
    Timings,
)
from worker.job_errors import job_error
from worker.queue.layout import rq_layout
from worker.queue.layout.tolerant import TolerantReader
from worker.webhook import JobWebhook, Webhook

_NOT_UNDERSTOOD = "not_understood"
"""Code of the warning of a job whose record was read in part."""

_UNKNOWN_REQUEST: dict[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "width": 0,
    "height": 0,
    "steps": 0,
    "cfg_scale": 0.0,
    "sampler": "",
    "scheduler": "",
    "seed": 0,
    "num_images": 0,
    "image_format": "png",
    "image_quality": 0,
    "metadata": "full",
}
"""Placeholders of fields that cannot be read."""

_UNKNOWN_ERROR = job_error("unreadable", "this release does not understand why the job failed")


def new_record(
    request: ResolvedRequest,
    *,
    warnings: tuple[JobWarning, ...],
    traceparent: str | None,
    original: Job | None = None,
    webhook: Webhook | None = None,
    cancel_after: float | None = None,
    request_id: str | None = None,
    owner: str = "",
    priority: Priority = "normal",
    checkpoint: Checkpoint = NO_CARD,
) -> dict[str, Any]:
    """The fields of a new job's record.

    A replay's record keeps what the comparison with its `original` needs, which may expire before.
    """
    fields = {
        "schema": SCHEMA_VERSION,
        "queue": rq_layout.QUEUE,
        "request": request.model_dump_json(),
        "warnings": dump_all(warnings),
        "cost": megapixel_steps(request),
        "traceparent": traceparent or "",
        "request_id": request_id or "",
        "owner": owner,
        "priority": priority,
        "card": checkpoint[0],
        "checkpoint": checkpoint[1],
    }
    if cancel_after is not None:
        fields["cancel_after"] = cancel_after
    if original is not None:
        fields["replay_of"] = original.id
        fields["original_hashes"] = json.dumps([image.fingerprint for image in original.images])
        if original.recipe is not None:
            fields["original_recipe"] = original.recipe.model_dump_json()
    if webhook is not None:
        fields["webhook"] = webhook.model_dump_json()
        fields["webhook_host"] = webhook.host
    return fields


def replay_warnings(original: Job) -> tuple[JobWarning, ...]:
    """The warnings of a replay of this job."""
    if original.request.deterministic:
        return ()
    detail = (
        f"job {original.id} was not deterministic: its batch neighbours may have changed the "
        "last bits of its images, so a difference proves nothing"
    )
    return (JobWarning(code="original_not_deterministic", detail=detail),)


def dump_all(parts: tuple[Any, ...] | list[Any]) -> str:
    """The JSON list of these models."""
    return json.dumps([part.model_dump(mode="json") for part in parts], ensure_ascii=False)


def read_job(job_id: str, record: Mapping[str, str], *, queue_position: int | None = None) -> Job:
    """The `Job` of a record. `eta_seconds` is set if it is running: its worker estimates it.

    A newer release may have written the record. The job is then shown as far as it is known, with
    the warning `not_understood`, and placeholders stand for the rest.
    """
    read = TolerantReader(record)
    request = read.part("request", ResolvedRequest, placeholders=_UNKNOWN_REQUEST)
    request = request or ResolvedRequest(**_UNKNOWN_REQUEST)
    status = known_status(record)
    if status != record.get("status"):
        read.left_out.append("status")
    created, started = read.time("created"), read.time("started")
    recipe, error = read.part("recipe", Recipe), read.part("error", JobError)
    images, warnings = read.parts("images", StoredImage), read.parts("warnings", JobWarning)
    timings = read.part("timings", Timings) or Timings()
    if started and created:
        queued = round((started - created).total_seconds(), 3)
        timings = timings.model_copy(update={"queued": queued})
    attempts, remaining = read.number("attempt"), read.number("eta")
    job = Job(
        id=job_id,
        status=status,
        request=request,
        progress=_progress(request, status, read.number("step")),
        queue_position=queue_position if status == "queued" else None,
        eta_seconds=_seconds_until(remaining) if status == "running" else None,
        images=tuple(
            image.model_copy(update={"deleted": True})
            if f"deleted:{image.name}" in record
            else image
            for image in images
        ),
        error=error or _UNKNOWN_ERROR if status == "failed" else error,
        attempts=int(attempts or 0),
        timings=timings,
        worker=record.get("worker"),
        recipe=recipe,
        replay_of=record.get("replay_of"),
        matches=_matches(read, images) if status == "succeeded" else None,
        webhook=_webhook(record, read),
        created_at=created or ULID.from_str(job_id).datetime,
        started_at=started,
        cancel_at=read.time("deadline"),
        finished_at=read.time("finished"),
        expires_at=read.time("expires"),
    )
    warnings += _recipe_warnings(read.part("original_recipe", Recipe), recipe)
    if read.left_out:
        warnings.append(_not_understood(read.left_out))
    return job.model_copy(update={"warnings": tuple(warnings)})


def known_status(record: Mapping[str, str | None]) -> Status:
    """The status of a record; of one that this release does not know, the nearest."""
    status = record.get("status")
    for known in get_args(Status):
        if status == known:
            return cast("Status", known)
    if record.get("finished"):
        return "succeeded" if record.get("images") not in (None, "", "[]") else "failed"
    return "running" if record.get("started") else "queued"


def is_understood(job: Job) -> bool:
    """Whether all of the job's record was read."""
    return all(warning.code != _NOT_UNDERSTOOD for warning in job.warnings)


def _not_understood(names: list[str]) -> JobWarning:
    detail = (
        "another release of the service wrote this job, and this one does not understand: "
        + ", ".join(names[:20])
    )
    return JobWarning(code=_NOT_UNDERSTOOD, detail=detail)


def _progress(request: ResolvedRequest, status: Status, step: float | None) -> Progress:
    try:
        steps = max(1, total_steps(request))
    except (LookupError, ValueError, ArithmeticError):  # a sampler of a newer release
        steps = max(1, request.steps)
    done = steps if status == "succeeded" else min(max(0, int(step or 0)), steps)
    return Progress(step=done, steps=steps, fraction=done / steps)


def _webhook(record: Mapping[str, str], read: TolerantReader) -> JobWebhook | None:
    try:
        return JobWebhook.from_record(record)
    except (ValueError, TypeError, LookupError, OverflowError):
        read.left_out.append("webhook")
        return None


def _matches(read: TolerantReader, images: list[StoredImage]) -> bool | None:
    """Whether a replay's images equal the original's, byte for byte except for signatures."""
    hashes = read.strings("original_hashes")
    return None if hashes is None else [image.fingerprint for image in images] == hashes


def _recipe_warnings(original: Recipe | None, recipe: Recipe | None) -> list[JobWarning]:
    """A warning if the worker of a replay differs from the original's."""
    if recipe is None or original is None:
        return []
    changes = [
        f"{name} was {getattr(original, name)} and is {getattr(recipe, name)}"
        for name in recipe_differences(original, recipe)
    ]
    if not changes:
        return []
    return [JobWarning(code="recipe_differs", detail="; ".join(changes))]


def _seconds_until(end: float | None) -> float | None:
    """Seconds until the end that the worker expects."""
    return None if end is None else round(max(0.0, end - time.time()), 1)
