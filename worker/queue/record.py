"""How a job lies in Redis: key names, scripts, and the record as a `Job`.

Knows the layout of RQ's keys only as far as the scripts write them together with the record.
"""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from pydantic import BaseModel
from redis import Redis
from rq.job import Job as RqJob
from rq.job import JobStatus, Retry
from rq.utils import now

from model.recipes.recipe import Recipe, recipe_differences
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps, total_steps
from worker.auth.api_keys import Priority
from worker.job import READABLE_SCHEMAS, SCHEMA_VERSION, Job, JobWarning, Progress, StoredImage
from worker.webhook import JobWebhook, Webhook

WAKE = "kirazuri:wake"
QUEUED = "kirazuri:queued"
RUNNING = "kirazuri:running"
TOTALS = "kirazuri:totals"
IMAGES = "kirazuri:images"
REMOVALS = "kirazuri:removals"
ORPHANS = "kirazuri:orphans"
PACE = "kirazuri:pace"
DEADLINES = "kirazuri:deadlines"
TURNS = "kirazuri:turns"
LINES = "kirazuri:lines"
SHARES = "kirazuri:shares"
CLOCK = "kirazuri:clock"
WORKERS = "kirazuri:workers"
OUTBOX = "kirazuri:outbox"

RQ_QUEUES = tuple(f"kirazuri-v{schema}" for schema in READABLE_SCHEMAS)
"""A queue per schema: a worker never sees a job that it is too old to understand."""

RQ_QUEUE = RQ_QUEUES[0]
"""Where this release puts its jobs; a record says in `queue` which one it is in."""

DEADLINE_NONCE = "deadline"
"""The cancel script's nonce where a job's time is over and no client asked."""

EVENTS_TTL_SECONDS = 900
"""Events outlive a job by this much; afterwards its end is told from the record."""

HEARTBEAT_TTL_SECONDS = 15

_RQ_RETRIES = 1_000_000
"""RQ always hands a lost job on; the claim script counts attempts and ends it."""


def job_key(job_id: str) -> str:
    """The hash that is the truth about a job."""
    return f"kirazuri:job:{job_id}"


def events_key(job_id: str) -> str:
    """The stream of a job's events."""
    return f"kirazuri:events:{job_id}"


def holders_key(name: str) -> str:
    """The unfinished jobs that start from a stored picture."""
    return f"kirazuri:holders:{name}"


def maker_key(owner: str, name: str) -> str:
    """The id of the owner's job that last made a picture. Owners have no colon."""
    return f"kirazuri:maker:{owner}:{name}"


def jobs_key(owner: str) -> str:
    """An owner's jobs, in the order of their ids."""
    return f"kirazuri:jobs:{owner}"


def unfinished_key(owner: str) -> str:
    """An owner's jobs that wait or run."""
    return f"kirazuri:unfinished:{owner}"


def spent_key(owner: str, day: int) -> str:
    """The work that an owner had accepted on a day, counted from 1970."""
    return f"kirazuri:spent:{owner}:{day}"


def owners_key(name: str) -> str:
    """Who may see a stored picture, and until when."""
    return f"kirazuri:owners:{name}"


def idempotency_key(owner: str, key: str | None) -> str:
    """Where the job of an owner's `Idempotency-Key` is found; "" for none. Owners have no colon."""
    return f"kirazuri:idem:{owner}:{key}" if key else ""


def client_key(client: str) -> str:
    """The jobs that a client of a surface without job ids may have under way."""
    return f"kirazuri:client:{client}"


def worker_key(name: str) -> str:
    """A worker's last heartbeat."""
    return f"kirazuri:worker:{name}"


def worker_metrics_key(name: str) -> str:
    """What a worker last said in numbers."""
    return f"kirazuri:worker-metrics:{name}"


def script_keys(job_id: str) -> list[str]:
    """KEYS of every script, in the order of `scripts/prelude.lua`."""
    rq_queue = f"rq:queue:{RQ_QUEUE}"
    return [
        job_key(job_id),
        events_key(job_id),
        WAKE,
        QUEUED,
        RUNNING,
        TOTALS,
        rq_queue,
        f"{rq_queue}:intermediate",
        f"rq:wip:{RQ_QUEUE}",
        f"rq:job:{job_id}",
        IMAGES,
        PACE,
        OUTBOX,
        REMOVALS,
        DEADLINES,
        TURNS,
        LINES,
        SHARES,
        CLOCK,
    ]


def script(name: str) -> str:
    """The source of a script, with what all of them share in front."""
    folder = resources.files("worker.queue") / "scripts"
    parts = ("prelude", "belongings", "turns", "finish", name)
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)


def rq_fields(job_id: str, connection: "Redis", *, queue: str = RQ_QUEUE) -> list[Any]:
    """The RQ hash of a job as field, value, ...; no I/O.

    The function name is a label: nothing here or in the worker ever resolves it. Neither prompt
    nor request is in it, since RQ shows descriptions in logs and dashboards.
    """
    job = RqJob.create(
        "kirazuri.generate",
        connection=connection,
        id=job_id,
        origin=queue,
        description="generate",
        serializer="json",
        status=JobStatus.QUEUED,
        timeout=-1,
        result_ttl=600,
        failure_ttl=86_400,
        retry=Retry(max=_RQ_RETRIES, enqueue_at_front=True),
    )
    job.enqueued_at = now()
    return [part for pair in job.to_dict().items() for part in pair]


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
    """What the API knows of a job when it admits it.

    Of an `original` all is kept that the comparison needs: it may expire before.
    """
    fields = {
        "schema": SCHEMA_VERSION,
        "queue": RQ_QUEUE,
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
    """What is to be said of a replay before it runs."""
    if original.request.deterministic:
        return ()
    detail = (
        f"job {original.id} was not deterministic: its neighbours may have changed the last bits "
        "of its pictures, so a difference proves nothing"
    )
    return (JobWarning(code="original_not_deterministic", detail=detail),)


def dump_all(parts: tuple[Any, ...] | list[Any]) -> str:
    """Models as a JSON list."""
    return json.dumps([part.model_dump(mode="json") for part in parts], ensure_ascii=False)


def read_job(job_id: str, record: Mapping[str, str], *, queue_position: int | None = None) -> Job:
    """A `Job` from its record; `eta_seconds` only for a running one, whose worker measured it."""
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
    """What this release knows of a part that a newer one may have written."""
    fields: dict[str, Any] = json.loads(data) if isinstance(data, str) else data
    return {name: value for name, value in fields.items() if name in model.model_fields}


def _matches(record: Mapping[str, str], images: list[StoredImage]) -> bool | None:
    """Whether a replay's pictures are the original's, byte for byte but for signatures."""
    if "original_hashes" not in record:
        return None
    hashes: list[str] = json.loads(record["original_hashes"])
    return [image.fingerprint for image in images] == hashes


def _recipe_warnings(record: Mapping[str, str], recipe: Recipe | None) -> list[JobWarning]:
    """A replay by another kind of worker may differ, and its file tells another recipe."""
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
    """Seconds until the moment at which the worker expects the job to end."""
    end = record.get("eta")
    return round(max(0.0, float(end) - time.time()), 1) if end else None
