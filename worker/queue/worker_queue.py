"""The worker's side of the records: claim, report, commit, give back, keep in order.

The same scripts as the API's, through a blocking client. All writes are fenced by the token of
the claim and may be repeated. Knows neither engine nor control loop.
"""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis import Redis
from redis.client import Pipeline

from model.resolved_request import ResolvedRequest
from worker.auth.api_keys import WEIGHTS
from worker.job import JobError, JobWarning, StoredImage, WorkerStatus
from worker.job_errors import job_error
from worker.queue import record
from worker.settings import Settings

Outcome = Literal["succeeded", "failed", "cancelled"]

_MISSING_SECONDS = 60
"""A queued job that RQ has not known for so long has fallen out of it."""

_REMOVED_AT_ONCE = 100
_REMOVAL_SECONDS = 60
"""A removal that takes longer was interrupted."""

_REMOVALS_TTL_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds now; `attempt` counts from 1, times are the server's.

    `traceparent` and `request_id` are those of the request that made it, `previous_span` that of
    the attempt before, each where it is known.
    `weight` is the owner's share of the work beside other owners'.
    """

    attempt: int
    request: ResolvedRequest
    warnings: tuple[JobWarning, ...]
    created: float
    started: float
    owner: str = ""
    weight: float = 1.0
    traceparent: str | None = None
    request_id: str | None = None
    previous_span: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """News of a running job: an event for its clients and fields for its record.

    `image` is the stored name of the picture that the news is about, `index` its place; storing
    it began at `image_began` of the monotonic clock.
    """

    event: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    image_began: float = 0.0
    index: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class WorkerQueue:
    """All that a worker may do with records."""

    def __init__(self, connection: "Redis", settings: Settings) -> None:
        self._redis = connection
        self._settings = settings
        self._scripts = {
            name: connection.register_script(record.script(name))
            for name in (
                "pick",
                "claim",
                "progress",
                "commit",
                "cancel",
                "release",
                "restore",
                "sweep",
                "swept",
            )
        }

    def pick(self, full: Collection[str]) -> str | None:
        """Pop the next job whose owner is none of these, as RQ pops from the list's head."""
        job_id = self._run("pick", *full)
        return _text(job_id) if job_id else None

    def claim(
        self, pipeline: "Pipeline", job_id: str, token: str, *, worker: str, is_alone: bool
    ) -> None:
        """Add a claim to a pipeline; `read_claim` understands its reply."""
        most = self._settings.max_attempts
        lost = job_error("worker_lost", f"{most} workers died while they carried out this request")
        self._scripts["claim"](
            keys=record.script_keys(job_id),
            args=[
                job_id,
                token,
                worker,
                most,
                int(is_alone),
                lost.model_dump_json(),
                self._settings.result_ttl_seconds,
                record.EVENTS_TTL_SECONDS,
            ],
            client=pipeline,
        )

    def report(self, pipeline: "Pipeline", job_id: str, token: str, note: Report) -> None:
        """Add news to a pipeline; the reply is ok, cancel or lost.

        It is again where the picture's bytes were removed since they were stored.
        """
        self._scripts["progress"](
            keys=record.script_keys(job_id),
            args=[
                job_id,
                token,
                note.event,
                json.dumps(note.data),
                note.image,
                self._settings.result_ttl_seconds,
                time.monotonic() - note.image_began,
                *(part for pair in note.fields.items() for part in pair),
            ],
            client=pipeline,
        )

    def commit(
        self,
        job_id: str,
        token: str,
        status: Outcome,
        *,
        images: Sequence[StoredImage] = (),
        error: JobError | None = None,
        timings: dict[str, float] | None = None,
    ) -> str:
        """End a job. The final status (a cancel wins), or `lost`: another worker has it."""
        listed = [image.model_dump(mode="json") for image in images]
        problem = error.model_dump(mode="json") if error else None
        data = {"succeeded": {"images": listed}, "failed": {"error": problem}, "cancelled": {}}
        reply = self._scripts["commit"](
            keys=record.script_keys(job_id),
            args=[
                job_id,
                token,
                status,
                json.dumps(data[status]),
                json.dumps(listed),
                json.dumps([image.name for image in images]),
                json.dumps(problem) if problem else "",
                json.dumps(timings or {}),
                self._settings.result_ttl_seconds,
                record.EVENTS_TTL_SECONDS,
            ],
        )
        return str(reply, "utf-8")

    def release(self, job_id: str, token: str, reason: str, *, is_free: bool) -> str:
        """Give a job back to the queue: `released`, or `lost`. A free try is not counted."""
        reply = self._scripts["release"](
            keys=record.script_keys(job_id), args=[job_id, token, reason, int(is_free)]
        )
        return str(reply, "utf-8")

    def heartbeat(self, pipeline: "Pipeline", status: WorkerStatus) -> None:
        """Add a sign of life to a pipeline."""
        key = record.worker_key(status.name)
        pipeline.set(key, status.model_dump_json(), ex=record.HEARTBEAT_TTL_SECONDS)
        pipeline.sadd(record.WORKERS, status.name)

    def tell_metrics(self, pipeline: "Pipeline", name: str, text: str) -> None:
        """Add a worker's numbers, in Prometheus' text format, to a pipeline."""
        pipeline.set(record.worker_metrics_key(name), text, ex=record.HEARTBEAT_TTL_SECONDS)

    def sign_off(self, name: str) -> None:
        """This worker is no more."""
        self._redis.delete(record.worker_key(name), record.worker_metrics_key(name))
        self._redis.srem(record.WORKERS, name)

    def clock_skew(self) -> float:
        """Seconds by which the local clock is ahead of the server's, within the round trip."""
        before = time.time()
        seconds, micros = self._redis.time()
        after = time.time()
        server = seconds + micros / 1e6
        return before - server if before > server else min(after - server, 0.0)

    def reconcile(self) -> list[str]:
        """Put jobs back into RQ that it lost; the ids of those. Also forget dead workers."""
        self._forget_workers()
        pipeline = self._redis.pipeline(transaction=False)
        for queue in record.RQ_QUEUES:
            pipeline.lrange(f"rq:queue:{queue}", 0, -1)
            pipeline.lrange(f"rq:queue:{queue}:intermediate", 0, -1)
            pipeline.zrange(f"rq:wip:{queue}", 0, -1)
        pipeline.zrange(record.RUNNING, 0, -1)
        pipeline.zrangebyscore(record.QUEUED, 0, time.time() - _MISSING_SECONDS)
        *known, running, queued = pipeline.execute()
        seen = {member.partition(b":")[0] for members in known for member in members}
        missing = [str(job_id, "utf-8") for job_id in [*running, *queued] if job_id not in seen]
        return [job_id for job_id in missing if self._restore(job_id)]

    def _restore(self, job_id: str) -> bool:
        """Put a job back into its queue, if it is one that we read."""
        name = self._redis.hget(record.job_key(job_id), "queue") or record.RQ_QUEUES[-1]
        queue = _text(name)
        if queue not in record.RQ_QUEUES:
            return False
        reply = self._scripts["restore"](
            keys=record.script_keys(job_id),
            args=[job_id, *record.rq_fields(job_id, self._redis, queue=queue)],
        )
        return bool(reply == b"restored")

    def end_overdue(self, *, limit: int = 100) -> list[str]:
        """End jobs whose deadline has come, at most `limit`; running ones by their holders."""
        overdue: Any = self._redis.zrangebyscore(
            record.DEADLINES, 0, time.time(), start=0, num=limit
        )
        for job_id in map(_text, overdue):
            outcome = self._scripts["cancel"](
                keys=record.script_keys(job_id),
                args=[
                    job_id,
                    record.DEADLINE_NONCE,
                    self._settings.result_ttl_seconds,
                    record.EVENTS_TTL_SECONDS,
                ],
            )
            if outcome in (b"missing", b"finished"):
                self._redis.zrem(record.DEADLINES, job_id)
        return [_text(job_id) for job_id in overdue]

    def _forget_workers(self) -> None:
        for name in self._redis.smembers(record.WORKERS):
            if not self._redis.exists(record.worker_key(_text(name))):
                self._redis.srem(record.WORKERS, name)

    def begin_removal(self, orphans: Sequence[str] = ()) -> list[str]:
        """Names of pictures to delete now: their time is over; of `orphans`, no record knows them.

        At most 100 of the first kind, and none that an unfinished job starts from. Call
        `end_removal` when they are deleted: what is made again before that is stored again.
        """
        names = self._run("sweep", _REMOVED_AT_ONCE, _REMOVAL_SECONDS, *orphans)
        return [_text(name) for name in names]

    def end_removal(self, touched: Sequence[str], later: Sequence[str] = ()) -> None:
        """The `touched` pictures may be gone by now; those of `later` are to be tried again."""
        counts = (_REMOVALS_TTL_SECONDS, _REMOVAL_SECONDS, len(touched))
        self._run("swept", *counts, *touched, *later)

    def _run(self, name: str, *args: str | float) -> Any:
        """A script that is about no job."""
        return self._scripts[name](keys=record.script_keys(""), args=["", *args])

    def may_look_for_orphans(self, *, every: int) -> bool:
        """Whether no worker has done so for `every` seconds; then it is this one's turn."""
        return bool(self._redis.set(record.ORPHANS, 1, nx=True, ex=every))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def read_claim(reply: list[bytes]) -> Claim | str:
    """The claim, or why there is none: solo, held or gone."""
    if reply[0] != b"claimed":
        return str(reply[0], "utf-8")
    _, attempt, request, warnings, created, started, owner, priority, *ids = reply
    traceparent, request_id, previous_span = (_text(value) if value else None for value in ids)
    return Claim(
        attempt=int(attempt),
        request=ResolvedRequest.model_validate_json(request),
        warnings=tuple(JobWarning.model_validate(entry) for entry in json.loads(warnings)),
        created=float(created),
        started=float(started),
        owner=_text(owner or ""),
        weight=WEIGHTS.get(_text(priority or ""), 1.0),
        traceparent=traceparent,
        request_id=request_id,
        previous_span=previous_span,
    )
