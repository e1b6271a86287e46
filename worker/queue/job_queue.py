"""The queue as the API uses it: admit, read, cancel and follow jobs, without blocking the loop.

The records in Redis are the truth. Only Lua scripts change them, together with RQ's keys.
"""

import asyncio
import copy
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any

from redis.asyncio import Redis
from ulid import ULID

from model.resolved_request import ResolvedRequest
from worker.auth.api_keys import KeyLimits
from worker.errors import (
    IdempotencyConflict,
    JobAlreadyFinished,
    JobExpired,
    JobNotFound,
    JobNotSucceeded,
    QueueFull,
    QuotaSpent,
    RedisUnfit,
    StoreError,
    TooManyJobs,
    WorkerError,
)
from worker.job import NO_CARD, TERMINAL, Checkpoint, Job, JobWarning, Status
from worker.job_events import JobEvent
from worker.queue.client_index import ClientIndex, WaitingCall
from worker.queue.eta import Eta, Throughput
from worker.queue.event_stream import EventReader, RecordMissing, follow
from worker.queue.job_records import JobRecords, job_with_eta
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.layout.record import is_understood, new_record, replay_warnings
from worker.queue.layout.tolerant import shared_number
from worker.queue.owner_index import OwnerIndex, OwnerUsage
from worker.queue.queue_state import QueueState, retry_after
from worker.queue.scripts.admission import NO_CALL, admit_arguments
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.wakeups import Wakeups
from worker.redis_io.client import connect_async, disconnect, unavailable_on_outage
from worker.redis_io.server_faults import faults_against_jobs
from worker.settings import Settings
from worker.telemetry import logs, tracing
from worker.webhook import Webhook

_JOB_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")

_POLL_SECONDS = 5.0
"""Listeners read again after this time, in case a wake-up was lost."""

_UNLIMITED = KeyLimits()


class JobQueue:
    """The jobs of one owner, or of all owners."""

    def __init__(self, url: str, settings: Settings, checkpoint: Checkpoint = NO_CARD) -> None:
        """A queue on the Redis at `url`, whose jobs are for workers of `checkpoint`; no I/O."""
        self._settings = settings
        self._redis = connect_async(url)
        self._wakeups = Wakeups(url)
        self._event_reader = EventReader(url)
        self._admit = LuaScript(self._redis, "admit")
        self._owner: str | None = None
        self._owner_index = OwnerIndex(self._redis, "")
        self.state = QueueState(self._redis, checkpoint)
        self._records = JobRecords(self._redis, settings, self.state)

    def owned_by(self, owner: str) -> "JobQueue":
        """The same queue as this owner sees it; jobs of others are JobNotFound."""
        narrowed = copy.copy(self)
        narrowed._owner, narrowed._owner_index = owner, self._owner_index.owned_by(owner)
        return narrowed

    @property
    def client(self) -> Redis:
        """The client of this process, for others in it."""
        return self._redis

    @property
    def owner_index(self) -> OwnerIndex:
        """The jobs, images and usage of the owner that this queue is narrowed to."""
        return self._owner_index

    def client_index(self, client: str) -> ClientIndex:
        """The jobs in progress of a client whose API has no job ids."""
        return ClientIndex(self._redis, client, ttl_seconds=self._settings.result_ttl_seconds)

    def waiting_call(self, caller: str, fingerprint: str, ttl_seconds: int) -> WaitingCall:
        """A call to pass to `admit`; without its answer, it is remembered for `ttl_seconds`."""
        key = redis_keys.calls_key(caller, fingerprint)
        return WaitingCall(self._redis, key, self._wakeups.process, ttl_seconds=ttl_seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._wakeups.close()
        await self._event_reader.close()
        await self.state.close()
        await disconnect(self._redis)

    async def ping(self) -> None:
        """Raise QueueUnavailable unless Redis answers."""
        with unavailable_on_outage():
            await self._redis.ping()

    # -- submitting --------------------------------------------------------------------------

    async def admit(
        self,
        request: ResolvedRequest,
        *,
        warnings: tuple[JobWarning, ...] = (),
        idempotency_key: str | None = None,
        is_key_renewed: bool = False,
        fingerprint: str = "",
        call: WaitingCall | None = None,
        traceparent: str | None = None,
        original: Job | None = None,
        webhook: Webhook | None = None,
        cancel_after: float | None = None,
        limits: KeyLimits = _UNLIMITED,
        on_usage: Callable[[OwnerUsage], None] | None = None,
    ) -> Job:
        """Queue a request, or find the earlier job of this key or call, in one round trip.

        With `is_key_renewed` the key stands for the new job. A job that has not ended
        `cancel_after` seconds from now is cancelled; `original` is the one that it replays. Of the
        `limits`, unfinished jobs and work are checked; `on_usage` gets what counts, if refused too.

        Raises:
            TooManyJobs, QuotaSpent, QueueFull: a limit of the key or of the queue is reached.
            IdempotencyConflict: the key was used with another fingerprint.
            QueueUnavailable: Redis is away; the job may exist, so repeat with the same key.
            RedisUnfit: Redis is nearly full or may lose jobs.
            StoreError: an image that it starts from was removed while it was being stored.
        """
        record = new_record(
            request,
            warnings=warnings,
            traceparent=traceparent,
            request_id=logs.log_context_value("request"),
            original=original,
            webhook=webhook,
            cancel_after=cancel_after,
            owner=self._owner or "",
            priority=limits.priority,
            checkpoint=self.state.checkpoint,
        )
        key = redis_keys.idempotency_key(self._owner or "", idempotency_key)
        idempotency = key, fingerprint, "1" if is_key_renewed else ""
        throughput = await self.state.throughput()
        reply = await self._admit_record(request, record, idempotency, limits, throughput, call)
        outcome, subject, mean_cost, unfinished, spent, *rest = reply
        if on_usage is not None:
            on_usage(OwnerUsage(int(unfinished), shared_number("spent work", spent)))
        if not rest:
            pause = retry_after(mean_cost, throughput)
            raise self._refusal(outcome, subject, limits, cost=record["cost"], pause=pause)
        position, running, fields = rest
        return job_with_eta(
            subject,
            dict(zip(fields[::2], fields[1::2], strict=True)),
            position=position,
            running=running,
            mean_cost=mean_cost,
            throughput=throughput,
        )

    async def _admit_record(
        self,
        request: ResolvedRequest,
        record: dict[str, Any],
        idempotency: tuple[str, str, str],
        limits: KeyLimits,
        throughput: Throughput,
        call: WaitingCall | None,
    ) -> list[Any]:
        """Run the admit script, which describes its reply; the mean work is a number here."""
        job_id = str(ULID())
        with unavailable_on_outage(), tracing.enqueue_span(rq_layout.QUEUE) as span:
            record["traceparent"] = tracing.traceparent_of() or record["traceparent"]
            arguments = admit_arguments(
                record,
                self._settings,
                idempotency=idempotency,
                call=call.arguments if call else NO_CALL,
                inputs=request.inputs,
                limits=limits,
                throughput=throughput,
                refused_faults=faults_against_jobs(self._settings),
            )
            reply: list[Any] = await self._admit(job_id, *arguments)
            outcome, subject = reply[:2]
            reply[2] = shared_number(redis_keys.MEAN_COST, reply[2])
            if call is not None and outcome in ("admitted", "repeated"):
                call.job_id = subject
            span.set_attributes({"messaging.message.id": subject, "kirazuri.outcome": outcome})
        if outcome == "unfit":
            await self.state.server()  # logs the fault
        return reply

    def _refusal(
        self, outcome: str, subject: str, limits: KeyLimits, *, cost: float, pause: int
    ) -> WorkerError:
        """The error for an outcome of the admit script; `pause` is when to try again."""
        match outcome:
            case "conflict":
                return IdempotencyConflict(
                    "the idempotency key was used before with another request"
                )
            case "unfit":
                return RedisUnfit(f"Redis takes no jobs: {subject}")
            case "busy":
                return TooManyJobs(limits.concurrency or 0, pause)
            case "spent":
                return QuotaSpent(limits.quota or 0, cost)
            case "full":
                return QueueFull(self._settings.max_queue, pause)
            case "removed":
                return StoreError(f"image {subject} is being removed just now; repeat the request")
            case _:
                raise AssertionError(outcome)

    async def forget_key(self, idempotency_key: str, job_id: str) -> None:
        """Let the key make a new job next time, if it still stands for this job."""
        key = redis_keys.idempotency_key(self._owner or "", idempotency_key)
        with unavailable_on_outage():
            if await self._redis.hget(key, "job") == job_id:
                await self._redis.delete(key)

    async def replay(
        self,
        job_id: str,
        *,
        idempotency_key: str | None = None,
        call: WaitingCall | None = None,
        traceparent: str | None = None,
        cancel_after: float | None = None,
        limits: KeyLimits = _UNLIMITED,
        on_usage: Callable[[OwnerUsage], None] | None = None,
    ) -> Job:
        """Queue the request of a succeeded job again, deterministic, to compare the images.

        Raises:
            JobNotSucceeded: the job is queued, running, failed or cancelled, or this release does
                not understand it.
            JobNotFound, JobExpired: there is no such job.
            TooManyJobs, QuotaSpent, QueueFull, IdempotencyConflict, QueueUnavailable: as `admit`.
        """
        original = await self.get(job_id)
        if original.status != "succeeded":
            raise JobNotSucceeded(
                f"job {job_id} is {original.status}; only a succeeded one can be replayed"
            )
        if not is_understood(original):
            raise JobNotSucceeded(f"job {job_id} was made by another release of the service")
        return await self.admit(
            original.request.model_copy(update={"deterministic": True}),
            warnings=replay_warnings(original),
            idempotency_key=idempotency_key,
            fingerprint=f"replay of {job_id}",
            call=call,
            traceparent=traceparent,
            original=original,
            cancel_after=cancel_after,
            limits=limits,
            on_usage=on_usage,
        )

    async def forecast(self, request: ResolvedRequest) -> Eta:
        """When the request would be done if it were admitted now.

        Raises:
            QueueUnavailable: Redis is away.
        """
        return await self.state.forecast(request, self._owner or "")

    # -- reading -----------------------------------------------------------------------------

    async def get(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            JobNotFound: there is no such job, or it is another owner's.
            JobExpired: the id is older than results are kept.
        """
        _check_id(job_id)
        (job,) = await self._records.read([job_id], owner=self._owner)
        if job is None:
            raise self._records.missing(job_id)
        return job

    async def jobs(
        self, *, status: Status | None = None, limit: int = 20, after: str | None = None
    ) -> tuple[list[Job], str | None]:
        """A page of the owner's jobs, newest first, and the cursor of the next page."""
        page = await self.owner_index.jobs(status=status, limit=limit, after=after)
        found = await self._records.read(page.job_ids, owner=self._owner)
        return [job for job in found if job is not None], page.next_cursor  # others have expired

    async def find_by_image(self, name: str) -> Job | None:
        """The owner's job that last made the image of this name, if its result is still kept.

        Raises:
            QueueUnavailable: Redis is away.
        """
        with unavailable_on_outage():
            job_id: Any = await self._redis.get(redis_keys.maker_key(self._owner or "", name))
        with suppress(JobNotFound, JobExpired):
            return await self.get(job_id) if job_id else None
        return None

    async def cancel(self, job_id: str) -> Job:
        """End a queued job at once, a running one at its worker's next step.

        Raises:
            JobAlreadyFinished: it has ended before.
            JobNotFound, JobExpired: there is no such job.
        """
        await self.get(job_id)  # the owner of a job does not change
        outcome = await self._records.cancel(job_id, str(ULID()))
        if outcome == "missing":
            raise self._records.missing(job_id)
        job = await self.get(job_id)
        if outcome == "finished":
            raise JobAlreadyFinished(f"job {job_id} is already {job.status}")
        return job

    # -- following ---------------------------------------------------------------------------

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job when it has ended, or as it is after `seconds`."""
        deadline = time.monotonic() + seconds
        if seconds <= 0:
            return await self.get(job_id)
        async with self._wakeups.listen(job_id) as wakeup:
            while True:
                wakeup.clear()
                job = await self.get(job_id)
                left = deadline - time.monotonic()
                if job.status in TERMINAL or left <= 0:
                    return job
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _POLL_SECONDS)):
                        await wakeup.wait()

    async def event_pages(
        self, job_id: str, *, after: str | None = None
    ) -> AsyncGenerator[list[JobEvent], None]:
        """The events of a job after the one with id `after`, then live ones, up to the end.

        Yields an empty page after every five seconds without an event. If events were trimmed, the
        current state takes their place, after a `gap` event if the listener had seen earlier ones.

        Raises:
            JobNotFound, JobExpired: there is no such job.
        """
        _check_id(job_id)
        followed = follow(
            self._event_reader,
            self._wakeups,
            job_id,
            after=after,
            owner=self._owner,
            pause=_POLL_SECONDS,
        )
        with unavailable_on_outage():
            async with aclosing(followed) as pages:
                try:
                    async for page in pages:
                        if not page:
                            await self.get(job_id)  # cancels the job if it is overdue
                        yield page
                except RecordMissing:
                    raise self._records.missing(job_id) from None

    async def has_seen_all(self, job_id: str, *, after: str | None) -> bool:
        """Whether the event with id `after` is the job's last.

        Raises:
            JobNotFound, JobExpired: there is no such job.
        """
        _check_id(job_id)
        with unavailable_on_outage():
            page = await self._event_reader.read(job_id, after)
        if page is None or self._owner not in (None, page.owner):
            raise self._records.missing(job_id)
        return page.is_end


def _check_id(job_id: str) -> None:
    if not _JOB_ID.match(job_id):
        raise JobNotFound("there is no such job: an id has 26 characters")
