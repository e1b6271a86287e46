"""Changes job records for a worker: claim, report, commit, release, and what maintenance repairs.

Uses the same scripts as the API, through a blocking client. The token of the claim fences all
writes, and all of them may be repeated.
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
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.scripts.lua_script import DEADLINE_NONCE, LuaScript, check_server
from worker.redis_io.server_faults import FaultLog, faults_against_claims
from worker.settings import Settings

FinalStatus = Literal["succeeded", "failed", "cancelled"]

_MISSING_SECONDS = 60
"""A queued job that RQ has not known for this long is put back."""

_RECONCILE_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds; `attempt` counts from 1, times are the server's.

    `traceparent` and `request_id` belong to the request that made the job, `previous_span` to the
    attempt before; each is None if unknown. `weight` is the owner's share of the work relative to
    other owners.
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

    `image` is the stored name of the image that the event is about, `index` its position. Storing
    it began at `image_began` of the monotonic clock.
    """

    event: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    image_began: float = 0.0
    index: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class WorkerQueue:
    """The queue as workers use it."""

    def __init__(self, connection: "Redis", settings: Settings) -> None:
        self._redis = connection
        self._settings = settings
        self._pick = LuaScript(connection, "pick")
        self._claim = LuaScript(connection, "claim")
        self._report = LuaScript(connection, "report")
        self._commit = LuaScript(connection, "commit")
        self._cancel = LuaScript(connection, "cancel")
        self._release = LuaScript(connection, "release")
        self._restore = LuaScript(connection, "restore")
        self._find_lost = LuaScript(connection, "find_lost")
        self._reconciled = 0.0
        self._fault_log = FaultLog()
        self._refused_faults = faults_against_claims(settings)

    # -- jobs ----------------------------------------------------------------------------------

    def pick(self, full_owners: Collection[str] = ()) -> tuple[str, str] | None:
        """Take the next job of an owner not among these out of the queue; (RQ's queue, job id)."""
        picked = self._pick("", " ".join(self._refused_faults), *full_owners)
        if not picked:
            return None
        key, job_id = map(_text, picked)
        return key.removeprefix(rq_layout.LIST_PREFIX), job_id

    def claim(
        self, pipeline: "Pipeline", job_id: str, token: str, *, worker: str, is_alone: bool
    ) -> None:
        """Add a claim to a pipeline; `read_claim` reads its reply."""
        attempts = self._settings.max_attempts
        lost = job_error(
            "worker_lost", f"{attempts} workers died while they carried out this request"
        )
        self._claim(
            job_id,
            token,
            worker,
            attempts,
            int(is_alone),
            lost.model_dump_json(),
            self._settings.result_ttl_seconds,
            client=pipeline,
        )

    def report(self, pipeline: "Pipeline", job_id: str, token: str, report: Report) -> None:
        """Add a report to a pipeline; its reply is ok, cancel, lost or again.

        The reply is `again` if the image's bytes were removed after they were stored.
        """
        self._report(
            job_id,
            token,
            report.event,
            json.dumps(report.data),
            report.image,
            self._settings.result_ttl_seconds,
            time.monotonic() - report.image_began,
            *(part for pair in report.fields.items() for part in pair),
            client=pipeline,
        )

    def commit(
        self,
        job_id: str,
        token: str,
        status: FinalStatus,
        *,
        images: Sequence[StoredImage] = (),
        error: JobError | None = None,
        timings: dict[str, float] | None = None,
    ) -> str:
        """End a job.

        Returns the final status, which is `cancelled` if a client cancelled the job before, or
        `lost` if another worker holds the job.
        """
        listed = [image.model_dump(mode="json") for image in images]
        problem = error.model_dump(mode="json") if error else None
        data = {"succeeded": {"images": listed}, "failed": {"error": problem}, "cancelled": {}}
        reply = self._commit(
            job_id,
            token,
            status,
            json.dumps(data[status]),
            json.dumps(listed),
            json.dumps([image.name for image in images]),
            json.dumps(problem) if problem else "",
            json.dumps(timings or {}),
            self._settings.result_ttl_seconds,
        )
        return _text(reply)

    def release(self, job_id: str, token: str, reason: str, *, is_free: bool) -> str:
        """Return a job to the queue; a free attempt is not counted.

        Returns `released`, or `lost` if another worker holds the job.
        """
        return _text(self._release(job_id, token, reason, int(is_free)))

    # -- workers -------------------------------------------------------------------------------

    def heartbeat(self, pipeline: "Pipeline", status: WorkerStatus) -> None:
        """Add a heartbeat to a pipeline."""
        key = redis_keys.worker_key(status.name)
        pipeline.set(key, status.model_dump_json(), ex=redis_keys.HEARTBEAT_TTL_SECONDS)
        pipeline.sadd(redis_keys.WORKERS, status.name)

    def send_metrics(self, pipeline: "Pipeline", name: str, text: str) -> None:
        """Add a worker's metrics, in Prometheus' text format, to a pipeline."""
        pipeline.set(redis_keys.worker_metrics_key(name), text, ex=redis_keys.HEARTBEAT_TTL_SECONDS)

    def remove_worker(self, name: str) -> None:
        """Remove a worker's heartbeat and metrics."""
        self._redis.delete(redis_keys.worker_key(name), redis_keys.worker_metrics_key(name))
        self._redis.srem(redis_keys.WORKERS, name)

    def check_server(self) -> bool:
        """Whether `pick` takes jobs from this server; if not, the log says why."""
        server = self._fault_log.note(check_server(self._redis))
        return not server.reasons(self._refused_faults)

    def clock_skew(self) -> float:
        """Seconds by which the local clock is ahead of the server's, within the round trip."""
        before = time.time()
        seconds, micros = self._redis.time()
        after = time.time()
        server = seconds + micros / 1e6
        return before - server if before > server else min(after - server, 0.0)

    # -- maintenance ---------------------------------------------------------------------------

    def reconcile(self) -> list[str]:
        """Put jobs back into RQ that it lost, and return their ids. Also forget dead workers.

        Each round looks at all running jobs and at the next 500 of those that have waited long.
        """
        self._forget_dead_workers()
        running: Any = self._redis.zrange(redis_keys.RUNNING, 0, -1)
        since = time.time() - _MISSING_SECONDS
        queued: Any = self._redis.zrange(
            redis_keys.QUEUED, f"({self._reconciled}", since, byscore=True,
            offset=0, num=_RECONCILE_AT_ONCE, withscores=True,
        )  # fmt: skip
        self._reconciled = queued[-1][1] if len(queued) == _RECONCILE_AT_ONCE else 0.0
        lost = self._find_lost("", *running, *(job_id for job_id, _ in queued))
        return [job_id for job_id in map(_text, lost) if self._put_back(job_id)]

    def _put_back(self, job_id: str) -> bool:
        """Put a job back into its queue, if this release can read it."""
        name = self._redis.hget(redis_keys.job_key(job_id), "queue") or rq_layout.FIRST_QUEUE
        queue = _text(name)
        if queue not in rq_layout.QUEUES:
            return False
        reply = self._restore(job_id, *rq_layout.job_fields(job_id, queue=queue))
        return bool(reply == b"restored")

    def _forget_dead_workers(self) -> None:
        for name in self._redis.smembers(redis_keys.WORKERS):
            if not self._redis.exists(redis_keys.worker_key(_text(name))):
                self._redis.srem(redis_keys.WORKERS, name)

    def cancel_overdue(self, *, limit: int = 100) -> list[str]:
        """Cancel jobs whose deadline has passed, at most `limit`, and return their ids.

        The worker that holds a running one ends it.
        """
        overdue: Any = self._redis.zrangebyscore(
            redis_keys.DEADLINES, 0, time.time(), start=0, num=limit
        )
        job_ids = [_text(job_id) for job_id in overdue]
        for job_id in job_ids:
            outcome = self._cancel(job_id, DEADLINE_NONCE, self._settings.result_ttl_seconds)
            if outcome in (b"missing", b"finished"):
                self._redis.zrem(redis_keys.DEADLINES, job_id)
        return job_ids


def read_claim(reply: list[bytes]) -> Claim | str:
    """The claim in a reply, or why there is none: solo, held or gone.

    Raises:
        ValueError: another version of the service wrote the record.
    """
    if reply[0] != b"claimed":
        return _text(reply[0])
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


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
