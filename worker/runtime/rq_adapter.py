"""Adapter to RQ: registers this worker and shows its leases, for RQ's tools and older workers.

The only module that acts as an RQ worker. RQ's own work loop and job functions never run. The
scripts take jobs out of RQ's lists, give leases and return lost jobs.
"""

import math
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline
from rq import SimpleWorker, worker_registration
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job as RqJob
from rq.utils import now
from rq.worker.base import WorkerStatus as RqStatus

from worker.queue.layout import rq_layout

_WORKER_TTL_SECONDS = 60
_SERIALIZER = "json"


class _RegisteredWorker(SimpleWorker):
    """The worker as RQ sees it: a registration with heartbeats. Its `work` is never called."""

    def __init__(self, connection: "Redis") -> None:
        super().__init__(
            list(rq_layout.QUEUES),
            name=f"{socket.gethostname()}-{uuid4().hex[:8]}",
            connection=connection,
            serializer=_SERIALIZER,
            log_job_description=False,
            prepare_for_work=False,  # it would ask Redis, which may be down at this moment
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self.birth_date = now()

    def _set_connection(self, connection: "Redis") -> "Redis":
        """Keep the short timeouts; RQ would raise them to minutes on the shared pool."""
        return connection


@dataclass(frozen=True, slots=True)
class Lease:
    """This worker's lease on a job: an execution in RQ's terms."""

    job: RqJob
    execution: Execution


class RqAdapter:
    """What a worker writes for RQ, with pipelines."""

    def __init__(self, connection: "Redis", *, lease_seconds: float) -> None:
        self._connection = connection
        self._lease_seconds = math.ceil(lease_seconds)
        self._worker = _RegisteredWorker(connection)
        self.name: str = self._worker.name

    def lease(self, queue: str, job_id: str, token: str) -> Lease:
        """The lease that the claim with this token gave; no I/O."""
        job = RqJob(job_id, connection=self._connection, serializer=self._worker.serializer)
        job.origin = queue
        return Lease(job, Execution(token, job_id, self._connection, worker_name=self.name))

    def add_heartbeat(self, pipeline: "Pipeline", leases: Iterable[Lease]) -> None:
        """Register the worker and renew its leases; a lease that was lost stays lost."""
        worker, ttl = self._worker, self._lease_seconds
        leases = list(leases)
        worker.last_heartbeat = now()
        pipeline.hset(worker.key, mapping=worker.serialize())
        worker_registration.register(worker, pipeline)
        worker.set_state(RqStatus.BUSY if leases else RqStatus.IDLE, pipeline=pipeline)
        for lease in leases:
            execution = lease.execution
            execution.save(ttl, pipeline)
            ExecutionRegistry(lease.job.id, pipeline).add(execution, ttl, pipeline)
            pipeline.sadd(execution.worker_executions_key, execution.composite_key)
            execution.heartbeat(lease.job.started_job_registry, ttl, pipeline)
        worker.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipeline)

    def end_lease(self, pipeline: "Pipeline", lease: Lease) -> None:
        """Remove this lease and nothing else: another worker may hold the job by now."""
        lease.execution.delete(lease.job, pipeline)

    def unregister(self, pipeline: "Pipeline") -> None:
        """Remove the registration."""
        worker_registration.unregister(self._worker, pipeline)
        pipeline.delete(self._worker.key, self._worker.executions_key)

    def ask_suspended(self, pipeline: "Pipeline") -> None:
        """Ask whether the operator called `rq suspend`; the reply is 0 or 1."""
        pipeline.exists(rq_layout.SUSPENDED_KEY)
