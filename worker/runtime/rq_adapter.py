"""Adapter to RQ: queues, leases, worker registration, maintenance.

The only module that uses RQ's classes inside. RQ's own work loop and job functions never run.
tests/worker/runtime/test_rq_adapter.py fixes the behaviour of RQ that this module relies on.
"""

import math
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker, worker_registration
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job as RqJob
from rq.registry import clean_registries
from rq.scripts import release_lock
from rq.suspension import is_suspended
from rq.utils import now
from rq.worker.base import WorkerStatus as RqStatus

from worker.queue.layout import rq_layout

_WORKER_TTL_SECONDS = 60
_SERIALIZER = "json"


class _LeasedIntermediateQueue(IntermediateQueue):
    """Recovers a popped but unleased job after `patience_seconds`, not after a minute."""

    patience_seconds = 6.0

    def should_be_cleaned_up(self, job_id: str) -> bool:
        seen = self.get_first_seen(job_id)
        return seen is not None and (now() - seen).total_seconds() > self.patience_seconds


class _LeasedQueue(Queue):
    """Queue whose maintenance lock expires soon and is released by its holder only.

    RQ's own lock outlives a dead holder by 15 minutes, and any worker may delete it.
    """

    lock_seconds = 12
    patience_seconds = 6.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock_owner = uuid4().hex

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        queue = _LeasedIntermediateQueue(self.key, connection=self.connection)
        queue.patience_seconds = self.patience_seconds
        return queue

    def acquire_maintenance_lock(self) -> bool:
        # Not with RQ's script: Redis refuses it when it is full.
        key, owner, ttl = self.registry_cleaning_key, self._lock_owner, self.lock_seconds
        if self.connection.set(key, owner, nx=True, ex=ttl):
            return True
        is_own = self.connection.get(key) == owner.encode()
        return is_own and bool(self.connection.expire(key, ttl))

    def release_maintenance_lock(self) -> None:
        release_lock(self.connection, self.registry_cleaning_key, self._lock_owner)


class _RegisteredWorker(SimpleWorker):
    """The worker as RQ sees it: a registration with heartbeats. Its `work` is never called."""

    queue_class = _LeasedQueue

    def __init__(self, connection: "Redis", lease_seconds: float) -> None:
        super().__init__(
            list(rq_layout.QUEUES),
            name=f"{socket.gethostname()}-{uuid4().hex[:8]}",
            connection=connection,
            serializer=_SERIALIZER,
            log_job_description=False,
            prepare_for_work=False,  # it would ask Redis, which may be down at this moment
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        for queue in self.leased_queues:
            queue.lock_seconds = math.ceil(2 * lease_seconds)
            queue.patience_seconds = lease_seconds

    @property
    def leased_queues(self) -> list[_LeasedQueue]:
        """The queues of this release first, then those of older releases."""
        return [queue for queue in self.queues if isinstance(queue, _LeasedQueue)]

    def _set_connection(self, connection: "Redis") -> "Redis":
        """Keep the short timeouts; RQ would raise them to minutes on the shared pool."""
        return connection


@dataclass(frozen=True, slots=True)
class Lease:
    """This worker's lease on a job: an execution in RQ's terms."""

    job: RqJob
    execution: Execution

    @property
    def token(self) -> str:
        """Identifies this attempt at the job; fences all its writes."""
        return self.execution.id


class RqAdapter:
    """What a worker does with RQ. Methods without a pipeline talk to Redis at once."""

    def __init__(self, connection: "Redis", *, lease_seconds: float) -> None:
        self._connection = connection
        self._lease_seconds = math.ceil(lease_seconds)
        self._worker = _RegisteredWorker(connection, lease_seconds)
        self.name = self._worker.name

    # -- jobs --------------------------------------------------------------------------------

    def add_lease(self, pipeline: "Pipeline", queue: str, job_id: str) -> Lease:
        """Add a lease on a popped job to a pipeline; never reads RQ's hash of the job."""
        job = RqJob(job_id, connection=self._connection, serializer=self._worker.serializer)
        job.origin = queue
        execution = Execution.create(
            job, self._lease_seconds, pipeline=pipeline, worker_name=self.name
        )
        job.prepare_for_execution(self.name, pipeline=pipeline)
        self._worker.set_state(RqStatus.BUSY, pipeline=pipeline)
        return Lease(job, execution)

    def end_lease(self, lease: Lease, *, is_idle: bool) -> None:
        """Remove this lease and nothing else: another worker may hold the job by now."""
        with self._connection.pipeline() as pipeline:
            lease.execution.delete(lease.job, pipeline)
            if is_idle:
                self._worker.set_state(RqStatus.IDLE, pipeline=pipeline)
            pipeline.execute()

    # -- registration ------------------------------------------------------------------------

    def register(self, *, is_busy: bool) -> None:
        """Register for `rq info`. Unlike RQ's own method it may be repeated with the same name."""
        worker = self._worker
        worker.birth_date = worker.birth_date or now()
        worker.last_heartbeat = now()
        with self._connection.pipeline() as pipeline:
            pipeline.hset(worker.key, mapping=worker.serialize())
            worker_registration.register(worker, pipeline)
            pipeline.expire(worker.key, _WORKER_TTL_SECONDS)
            worker.set_state(RqStatus.BUSY if is_busy else RqStatus.IDLE, pipeline=pipeline)
            pipeline.execute()

    def unregister(self) -> None:
        """Remove the registration."""
        self._worker.register_death()  # type: ignore[no-untyped-call]

    def add_heartbeat(self, pipeline: "Pipeline", leases: Iterable[Lease]) -> None:
        """Add a heartbeat to an empty pipeline: of the worker, then of its leases."""
        self._worker.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipeline)
        for lease in leases:
            registry = lease.job.started_job_registry
            lease.execution.heartbeat(registry, self._lease_seconds, pipeline=pipeline)

    @staticmethod
    def is_registration_lost(replies: Sequence[Any]) -> bool:
        """Whether the replies to `add_heartbeat` say that the registration had expired.

        The heartbeat's first command is HSET; it answers 1 if it had to create the field.
        """
        return bool(replies[0] == 1)

    def is_suspended(self) -> bool:
        """Whether the operator called `rq suspend`."""
        return bool(is_suspended(self._connection))

    # -- maintenance -------------------------------------------------------------------------

    @contextmanager
    def maintenance_lock(self) -> Iterator[bool]:
        """Hold the lock of all workers during maintenance; yields False if another one has it."""
        queue = self._worker.leased_queues[0]
        if not queue.acquire_maintenance_lock():
            yield False
            return
        try:
            yield True
        finally:
            queue.release_maintenance_lock()

    def requeue_lost_jobs(self) -> None:
        """Requeue jobs whose lease expired or that were popped and never leased.

        Also removes expired workers from RQ's registry. Call it under `maintenance_lock`.
        """
        for queue in self._worker.leased_queues:
            clean_registries(queue)
            worker_registration.clean_worker_registry(queue)
            queue.intermediate_queue.cleanup(self._worker, queue)
