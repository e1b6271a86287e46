"""Writes the record of a new job and reads records as `Job`."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from model.recipes.recipe import Recipe, recipe_differences
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps, total_steps
from worker.auth.api_keys import Priority
from worker.job import SCHEMA_VERSION, Job, JobWarning, Progress, StoredImage
from worker.queue.layout import rq_layout
from worker.webhook import JobWebhook, Webhook


def new_record(
    request: ResolvedRequest,
    *,
    warnings: tuple[JobWarning, ...],
    traceparent: str | None,
    original: Job | None = None,
    webhook: Webhook | None = None,
    cancel_after: float | None = None,
    eta_seconds: float | None = None,
    request_id: str | None = None,
    owner: str = "",
    priority: Priority = "normal",
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
    }
    if eta_seconds is not None:
        fields["promised"] = eta_seconds
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
    """The `Job` of a record. `eta_seconds` is set if it is running: its worker estimates it."""
    request = ResolvedRequest.model_validate(_known(ResolvedRequest, record["request"]))
    status = record["status"]
    steps = total_steps(request)
    step = steps if status == "succeeded" else int(record.get("step", 0))
    created, started = _time(record, "created"), _time(record, "started")
    timings = json.loads(record.get("timings") or "{}")
    recipe = None
    if record.get("recipe"):
        recipe = Recipe.model_validate(_known(Recipe, record["recipe"]))
    images = [
        StoredImage.model_validate(_known(StoredImage, image))
        for image in json.loads(record.get("images") or "[]")
    ]
    if started and created:
        timings["queued"] = round((started - created).total_seconds(), 3)
    return Job(
        id=job_id,
        status=status,
        request=request,
        progress=Progress(step=step, steps=steps, fraction=step / steps),
        queue_position=queue_position if status == "queued" else None,
        eta_seconds=_remaining(record) if status == "running" else None,
        images=images,
        warnings=[*json.loads(record.get("warnings") or "[]"), *_recipe_warnings(record, recipe)],
        error=json.loads(record["error"]) if record.get("error") else None,
        attempts=int(record.get("attempt", 0)),
        timings=timings,
        worker=record.get("worker"),
        recipe=recipe,
        replay_of=record.get("replay_of"),
        matches=_matches(record, images) if status == "succeeded" else None,
        webhook=JobWebhook.from_record(record),
        created_at=created or datetime.now(UTC),
        started_at=started,
        cancel_at=_time(record, "deadline"),
        finished_at=_time(record, "finished"),
        expires_at=_time(record, "expires"),
    )


def _known(model: type[BaseModel], data: str | dict[str, Any]) -> dict[str, Any]:
    """The fields that this release knows; a newer release may have written more."""
    fields: dict[str, Any] = json.loads(data) if isinstance(data, str) else data
    return {name: value for name, value in fields.items() if name in model.model_fields}


def _matches(record: Mapping[str, str], images: list[StoredImage]) -> bool | None:
    """Whether a replay's images equal the original's, byte for byte except for signatures."""
    if "original_hashes" not in record:
        return None
    hashes: list[str] = json.loads(record["original_hashes"])
    return [image.fingerprint for image in images] == hashes


def _recipe_warnings(record: Mapping[str, str], recipe: Recipe | None) -> list[JobWarning]:
    """A warning if the worker of a replay differs from the original's."""
    if recipe is None or "original_recipe" not in record:
        return []
    original = Recipe.model_validate_json(record["original_recipe"])
    changes = [
        f"{name} was {getattr(original, name)} and is {getattr(recipe, name)}"
        for name in recipe_differences(original, recipe)
    ]
    if not changes:
        return []
    return [JobWarning(code="recipe_differs", detail="; ".join(changes))]


def _time(record: Mapping[str, str], name: str) -> datetime | None:
    value = record.get(name)
    return datetime.fromtimestamp(float(value), UTC) if value else None


def _remaining(record: Mapping[str, str]) -> float | None:
    """Seconds until the end that the worker expects."""
    end = record.get("eta")
    return round(max(0.0, float(end) - time.time()), 1) if end else None
