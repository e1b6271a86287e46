"""Reads jobs from their records, with their place in the queue, and cancels them."""

import time
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from ulid import ULID

from worker.errors import JobExpired, JobNotFound
from worker.job import Job
from worker.queue.eta import Throughput, forecast
from worker.queue.layout import redis_keys
from worker.queue.layout.record import read_job
from worker.queue.layout.tolerant import TolerantReader, shared_number
from worker.queue.queue_state import QueueState
from worker.queue.scripts.lua_script import DEADLINE_NONCE, LuaScript
from worker.redis_io.client import unavailable_on_outage
from worker.settings import Settings

_OVERDUE_SECONDS = 5.0
"""Workers cancel overdue jobs. If none did so for this long, the reader does."""

Record = Mapping[str, str]


def job_with_eta(
    job_id: str,
    record: Record,
    *,
    position: int,
    running: int,
    mean_cost: float,
    throughput: Throughput,
) -> Job:
    """The job of a record, with its place in the queue and its ETA if it is queued."""
    job = read_job(job_id, record, queue_position=position)
    if job.status != "queued":
        return job
    eta = forecast(
        TolerantReader(record).number("cost") or 0.0,
        position=position,
        running=running,
        mean_cost=mean_cost,
        throughput=throughput,
    )
    return job.model_copy(update={"eta_seconds": eta.eta_seconds})


class JobRecords:
    """The records of jobs, as the API uses them. Every method may raise QueueUnavailable."""

    def __init__(self, redis: "Redis", settings: Settings, state: QueueState) -> None:
        self._redis = redis
        self._result_ttl = settings.result_ttl_seconds
        self._state = state
        self._cancel = LuaScript(redis, "cancel")
        self._queue_positions = LuaScript(redis, "queue_positions")

    async def read(self, job_ids: Sequence[str], *, owner: str | None) -> list[Job | None]:
        """The jobs as they are now, in one round trip for all of them.

        A job is None if there is none, or if `owner` is another owner; an `owner` of None sees
        all jobs.
        """
        if not job_ids:
            return []
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipeline.hgetall(redis_keys.job_key(job_id))
            await self._queue_positions("", *job_ids, client=pipeline)
            pipeline.zcard(redis_keys.RUNNING)
            pipeline.get(redis_keys.MEAN_COST)
            *replies, found, running, mean_cost = await pipeline.execute()
            records: dict[str, Record] = {
                job_id: record
                for job_id, record in zip(job_ids, replies, strict=True)
                if record and owner in (None, record.get("owner", ""))
            }
        positions = dict(zip(job_ids, found, strict=True))
        return [
            await self._job(
                job_id,
                records[job_id],
                position=positions[job_id],
                running=running,
                mean_cost=shared_number(redis_keys.MEAN_COST, mean_cost),
            )
            if job_id in records
            else None
            for job_id in job_ids
        ]

    async def _job(
        self, job_id: str, record: Record, *, position: int, running: int, mean_cost: float
    ) -> Job | None:
        """The job of a record; a queued one that is overdue is cancelled."""
        is_queued = record.get("status") == "queued"
        throughput = await self._state.throughput() if is_queued else Throughput()
        job = job_with_eta(
            job_id,
            record,
            position=position,
            running=running,
            mean_cost=mean_cost,
            throughput=throughput,
        )
        if job.status != "queued" or not job.cancel_at:
            return job
        if job.cancel_at.timestamp() < time.time() - _OVERDUE_SECONDS:
            await self.cancel(job_id, DEADLINE_NONCE)
            (cancelled,) = await self.read([job_id], owner=None)
            return cancelled
        return job

    async def cancel(self, job_id: str, nonce: str) -> str:
        """End a queued job, or ask the worker of a running one to end it.

        Returns cancelled, requested, finished or missing; the same for a repeat with this nonce.
        """
        with unavailable_on_outage():
            outcome: str = await self._cancel(job_id, nonce, self._result_ttl)
        return outcome

    def missing(self, job_id: str) -> JobNotFound | JobExpired:
        """The error for an id without a record."""
        age = time.time() - ULID.from_str(job_id).timestamp
        if age > self._result_ttl:
            return JobExpired(f"job {job_id} is older than results are kept")
        return JobNotFound(f"there is no job {job_id}")
