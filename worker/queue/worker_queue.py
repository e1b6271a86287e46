"""Changes job records for a worker: claim, report, commit, release, and what maintenance repairs.

Uses the same scripts as the API, through a blocking client. The token of the claim fences all
writes, and all of them may be repeated. What gets a pipeline is sent with it.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis import Redis
from redis.client import Pipeline

from model.resolved_request import ResolvedRequest
from worker.auth.api_keys import WEIGHTS
from worker.job import NO_CARD, Checkpoint, JobError, JobWarning, StoredImage, WorkerStatus
from worker.job_errors import job_error
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.scripts.lua_script import LuaScript
from worker.redis_io.server_faults import FaultLog, faults_against_claims, read_state, text_of
from worker.settings import Settings

FinalStatus = Literal["succeeded", "failed", "cancelled"]

_MISSING_SECONDS = 60
"""A queued job that RQ has not known for this long is put back."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds; `attempt` counts from 1, times are the server's.

    `token` fences its writes; `queue` is RQ's. A job that `must_be_alone` may have killed workers.

    `traceparent` and `request_id` belong to the request that made the job, `previous_span` to the
    attempt before; each is None if unknown. `weight` is the owner's share of the work relative to
    other owners.
    """

    job_id: str
    token: str
    queue: str
    must_be_alone: bool
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


@dataclass(frozen=True, slots=True)
class Repairs:
    """What a round of maintenance did: jobs it put back, and jobs whose deadline has passed."""

    restored: tuple[str, ...]
    overdue: tuple[str, ...]


class WorkerQueue:
    """The queue as workers use it."""

    def __init__(self, connection: "Redis", settings: Settings) -> None:
        self.redis = connection
        self._settings = settings
        self._claim = LuaScript(connection, "claim")
        self._report = LuaScript(connection, "report")
        self._commit = LuaScript(connection, "commit")
        self._release = LuaScript(connection, "release")
        self._maintain = LuaScript(connection, "maintain")
        self._looked_at = "0"
        self._check_server = LuaScript(connection, "check_server")
        self._fault_log = FaultLog()
        self._refused_faults = faults_against_claims(settings)

    # -- jobs ----------------------------------------------------------------------------------

    def claim(
        self,
        pipeline: "Pipeline",
        tokens: Sequence[str],
        *,
        worker: str,
        checkpoints: Sequence[Checkpoint],
        running: Mapping[str, int],
    ) -> None:
        """Add a claim of up to one job per token to a pipeline; `read_claims` reads its reply.

        Only jobs for these checkpoints, or for none in particular, are taken. `running` counts the
        worker's jobs by owner.
        """
        attempts = self._settings.max_attempts
        lost = job_error(
            "worker_lost", f"{attempts} workers died while they carried out this request"
        )
        self._claim(
            "",
            worker,
            json.dumps([*checkpoints, NO_CARD]),
            len(tokens),
            self._settings.max_running,
            json.dumps(running),
            "" if running else 1,
            self._settings.lease_seconds,
            attempts,
            lost.model_dump_json(),
            self._settings.result_ttl_seconds,
            " ".join(self._refused_faults),
            *tokens,
            client=pipeline,
        )

    def report(self, pipeline: "Pipeline", reports: Iterable[tuple[str, str, Report]]) -> None:
        """Add reports on jobs, each with its job id and token, to a pipeline.

        The reply is a list with ok, cancel, lost or again for each. It is `again` if the image's
        bytes were removed after they were stored; `commit` then waits until they are stored again.
        """
        now = time.monotonic()
        arguments: list[Any] = []
        for job_id, token, report in reports:
            fields = [part for pair in report.fields.items() for part in pair]
            image, stored = report.image, now - report.image_began
            arguments += (job_id, token, report.event, json.dumps(report.data), image, stored)
            arguments += (len(fields), *fields)
        self._report("", self._settings.result_ttl_seconds, *arguments, client=pipeline)

    def commit(
        self,
        job_id: str,
        token: str,
        status: FinalStatus,
        *,
        pipeline: "Pipeline | None" = None,
        images: Sequence[StoredImage] = (),
        error: JobError | None = None,
        timings: Mapping[str, float] | None = None,
    ) -> str:
        """End a job, at once or with a pipeline.

        The reply is the final status, which is `cancelled` if a client cancelled the job before,
        `lost` if another worker holds the job, or `again` if an image must be stored again.
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
            client=pipeline,
        )
        return text_of(reply) if pipeline is None else ""

    def release(
        self,
        job_id: str,
        token: str,
        reason: str,
        *,
        is_free: bool,
        pipeline: "Pipeline | None" = None,
    ) -> str:
        """Return a job to the queue, at once or with a pipeline; a free attempt is not counted.

        The reply is `released`, or `lost` if another worker holds the job.
        """
        reply = self._release(job_id, token, reason, int(is_free), client=pipeline)
        return text_of(reply) if pipeline is None else ""

    # -- workers -------------------------------------------------------------------------------

    def heartbeat(self, pipeline: "Pipeline", status: WorkerStatus) -> None:
        """Add a heartbeat to a pipeline."""
        key = redis_keys.worker_key(status.name)
        pipeline.set(key, status.model_dump_json(), ex=redis_keys.HEARTBEAT_TTL_SECONDS)
        pipeline.sadd(redis_keys.WORKERS, status.name)

    def send_metrics(self, pipeline: "Pipeline", name: str, text: str) -> None:
        """Add a worker's metrics, in Prometheus' text format, to a pipeline."""
        pipeline.set(redis_keys.worker_metrics_key(name), text, ex=redis_keys.HEARTBEAT_TTL_SECONDS)

    def remove_worker(self, pipeline: "Pipeline", name: str) -> None:
        """Add the removal of a worker's heartbeat and metrics to a pipeline."""
        pipeline.delete(redis_keys.worker_key(name), redis_keys.worker_metrics_key(name))
        pipeline.srem(redis_keys.WORKERS, name)

    def check_server(self, pipeline: "Pipeline") -> None:
        """Add a check of the server's settings to a pipeline; `is_server_fit` reads its reply."""
        self._check_server("", client=pipeline)

    def is_server_fit(self, reply: list[Any]) -> bool:
        """Whether jobs are claimed from this server; if not, the log says why."""
        state = self._fault_log.note(read_state(reply))
        return not state.reasons(self._refused_faults)

    def maintain(self, pipeline: "Pipeline") -> None:
        """Add a round of maintenance to a pipeline; `read_repairs` reads its reply.

        It returns jobs whose lease has expired to the queue, and jobs that RQ lost; it ends jobs
        whose deadline has passed and forgets dead workers. A round looks at all running jobs, and
        at the next 500 of those that have waited for long.
        """
        self._maintain(
            "",
            time.time(),
            self._settings.lease_seconds,
            _MISSING_SECONDS,
            self._looked_at,
            self._settings.result_ttl_seconds,
            *rq_layout.job_fields(),
            client=pipeline,
        )

    def read_repairs(self, reply: list[Any]) -> Repairs:
        """What the round of maintenance with this reply did."""
        looked_at, restored, overdue = reply
        self._looked_at = text_of(looked_at)
        return Repairs(tuple(map(text_of, restored)), tuple(map(text_of, overdue)))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A claimed job whose record another version of the service wrote."""

    job_id: str
    token: str
    reason: str


def read_claims(reply: list[list[bytes]]) -> list[Claim | Unreadable]:
    """The claims in a reply."""
    return [_read_claim(parts) for parts in reply]


def _read_claim(parts: list[bytes]) -> Claim | Unreadable:
    token, job_id, queue, alone, attempt, body, warned, created, started, *rest = parts
    try:
        request = ResolvedRequest.model_validate_json(body)
        warnings = tuple(JobWarning.model_validate(entry) for entry in json.loads(warned))
        counted, times = int(attempt), (float(created), float(started))
    except (ValueError, TypeError) as exc:
        return Unreadable(text_of(job_id), text_of(token), str(exc))
    owner, priority, traceparent, request_id, previous_span = (
        text_of(value) if value else None for value in rest
    )
    return Claim(
        job_id=text_of(job_id),
        token=text_of(token),
        queue=text_of(queue),
        must_be_alone=bool(alone),
        attempt=counted,
        request=request,
        warnings=warnings,
        created=times[0],
        started=times[1],
        owner=owner or "",
        weight=WEIGHTS.get(priority or "", 1.0),
        traceparent=traceparent,
        request_id=request_id,
        previous_span=previous_span,
    )
