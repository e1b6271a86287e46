"""Names RQ's queues and keys and reads its formats, as far as this service relies on them.

The Lua scripts get RQ's keys from here. `tests/worker/queue/test_rq_contract.py` compares all of
it with the installed RQ.
"""

from functools import cache
from typing import Any

from redis import Redis
from rq.job import Job as RqJob
from rq.job import JobStatus, Retry
from rq.utils import now, utcformat

from worker.job import READABLE_SCHEMAS

QUEUES = tuple(f"kirazuri-v{schema}" for schema in READABLE_SCHEMAS)
"""One queue per schema, newest first: a worker does not see jobs that it cannot read."""

QUEUE = QUEUES[0]
"""The queue for new jobs of this release."""

FIRST_QUEUE = "kirazuri-v1"
"""The queue of records without a `queue` field, which the first release wrote."""

QUEUES_KEY = "rq:queues"
WORKERS_KEY = "rq:workers"
SUSPENDED_KEY = "rq:suspended"
LIST_PREFIX = "rq:queue:"
LEASES_PREFIX = "rq:wip:"
INTERMEDIATE_SUFFIX = ":intermediate"
FIRST_SEEN_INFIX = ":first_seen:"
LEASE_SEPARATOR = ":"

_RETRIES = 1_000_000
"""RQ always queues a lost job again; the claim script counts the attempts."""

_UNCONNECTED = Redis()
"""RQ's `Job` requires a client; no command is sent through it."""


def list_key(queue: str = QUEUE) -> str:
    """The list of the ids of jobs that go before all lines."""
    return LIST_PREFIX + queue


def intermediate_key(queue: str = QUEUE) -> str:
    """The list of job ids that a worker of an older release popped and has not yet leased."""
    return list_key(queue) + INTERMEDIATE_SUFFIX


def leases_key(queue: str = QUEUE) -> str:
    """The sorted set of leases, by the time at which they expire."""
    return LEASES_PREFIX + queue


def workers_key(queue: str = QUEUE) -> str:
    """The set of keys of the workers that serve a queue."""
    return f"{WORKERS_KEY}:{queue}"


def job_key(job_id: str) -> str:
    """RQ's hash of a job."""
    return f"rq:job:{job_id}"


def lease_member(job_id: str, token: str) -> str:
    """A member of the set of leases; `token` is the id of RQ's execution."""
    return f"{job_id}{LEASE_SEPARATOR}{token}"


def job_fields(*, queue: str = QUEUE) -> list[Any]:
    """RQ's hash of a new job as field, value, ...; no I/O.

    The function name is a label and is not resolved. The hash contains neither prompt nor
    request, because RQ shows descriptions in logs and dashboards.
    """
    created = utcformat(now())
    fields = {**_same_fields(queue), "created_at": created, "enqueued_at": created}
    return [part for pair in fields.items() for part in pair]


@cache
def _same_fields(queue: str) -> dict[str, Any]:
    """The fields of RQ's hash, which are the same for all jobs of a queue but for the times."""
    job = RqJob.create(
        "kirazuri.generate",
        connection=_UNCONNECTED,
        id="any",
        origin=queue,
        description="generate",
        serializer="json",
        status=JobStatus.QUEUED,
        timeout=-1,
        result_ttl=600,
        failure_ttl=86_400,
        retry=Retry(max=_RETRIES, enqueue_at_front=True),
    )
    fields: dict[str, Any] = job.to_dict()
    return fields
