"""The queue as the API sees it: admit, look, cancel, follow. Never blocks the event loop.

The record in Redis is the truth and only scripts change it; RQ underneath is told in the same
step. Knows neither HTTP nor how a job is carried out.
"""

import asyncio
import copy
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from ulid import ULID

from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.auth.api_keys import KeyLimits
from worker.errors import (
    IdempotencyConflict,
    JobAlreadyFinished,
    JobExpired,
    JobNotFound,
    JobNotSucceeded,
    QueueFull,
    QuotaSpent,
    StoreError,
    TooManyJobs,
)
from worker.job import TERMINAL, Job, JobWarning, Status, WorkerStatus
from worker.job_events import JobEvent
from worker.queue import record
from worker.queue.client_index import ClientIndex
from worker.queue.counters import Counters, read_tallies
from worker.queue.eta import Eta, Throughput, forecast
from worker.queue.event_stream import EventReader, RecordMissing, follow
from worker.queue.outbox import OutboxState, read_state
from worker.queue.owner_index import OwnerIndex
from worker.queue.wakeups import Wakeups
from worker.redis_io.client import connect_async, disconnect, unavailable_on_outage
from worker.settings import Settings
from worker.telemetry import logs, tracing
from worker.webhook import Webhook

_JOB_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")

_POLL_SECONDS = 5.0
"""Listeners look for themselves this often, in case a wake-up was lost."""

UNLIMITED = KeyLimits()

_MAX_RETRY_AFTER = 120

_OVERDUE_SECONDS = 5.0
"""Workers end queued jobs at their deadline; after so long there seem to be none."""


@dataclass(slots=True)
class _CachedThroughput:
    """The last answer, shared by all views of a queue."""

    asked_at: float = 0.0
    pace: Throughput = field(default_factory=Throughput)


class JobQueue:
    """All that the API may do with jobs."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect_async(url)
        self._hub = Wakeups(url)
        self._pages = EventReader(url)
        self._unconnected = Redis()  # RQ's Job wants a client; nothing is ever sent through it
        self._admit = self._redis.register_script(record.script("admit"))
        self._cancel = self._redis.register_script(record.script("cancel"))
        self._outlook = self._redis.register_script(record.script("outlook"))
        self._pace = _CachedThroughput()
        self._owner: str | None = None

    @classmethod
    def connect(cls, url: str, settings: Settings) -> "JobQueue":
        """A queue on the Redis at `url`; connections are made when first used."""
        return cls(url, settings)

    def owned_by(self, owner: str) -> "JobQueue":
        """The same queue as this owner may see it; jobs of others are JobNotFound."""
        narrowed = copy.copy(self)
        narrowed._owner = owner
        return narrowed

    def jobs_of(self, client: str) -> ClientIndex:
        """What this client of a surface without job ids has under way."""
        return ClientIndex(self._redis, client, ttl_seconds=self._settings.result_ttl_seconds)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._hub.close()
        await self._pages.close()
        await disconnect(self._redis)

    async def ping(self) -> None:
        """QueueUnavailable unless Redis answers."""
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
        traceparent: str | None = None,
        original: Job | None = None,
        webhook: Webhook | None = None,
        cancel_after: float | None = None,
        limits: KeyLimits = UNLIMITED,
    ) -> Job:
        """Queue a request, or find the job that this idempotency key made before.

        With `is_key_renewed` the key stands for the new job, whatever it stood for.
        It is cancelled if it has not ended `cancel_after` seconds from now. The stored pictures
        that it starts from are kept as long as the job. `original` is the finished job whose
        pictures the new one's are to be compared with, `webhook` says who is told of the job's
        events. Of the key's `limits` those of unfinished jobs and of work are held here.

        Raises:
            TooManyJobs, QuotaSpent: the limits are reached.
            QueueFull: as many jobs wait as the settings allow.
            IdempotencyConflict: the key was used with another fingerprint.
            QueueUnavailable: Redis is away; the job may exist, so repeat with the same key.
            StoreError: a picture that it starts from was swept at the moment it was stored.
        """
        job_id = str(ULID())
        fields = record.new_record(
            request,
            warnings=warnings,
            traceparent=traceparent,
            request_id=logs.log_context_value("request"),
            original=original,
            webhook=webhook,
            cancel_after=cancel_after,
            eta_seconds=(await self.forecast(request)).eta_seconds,
            owner=self._owner or "",
            priority=limits.priority,
        )
        with unavailable_on_outage(), tracing.enqueue_span(record.RQ_QUEUE) as span:
            fields["traceparent"] = tracing.traceparent_of() or fields["traceparent"]
            pairs = [part for pair in fields.items() for part in pair]
            outcome, known_id = await self._admit(
                keys=record.script_keys(job_id),
                args=[
                    job_id,
                    self._settings.max_queue,
                    record.idempotency_key(self._owner or "", idempotency_key),
                    fingerprint,
                    self._settings.idempotency_ttl_seconds,
                    "1" if is_key_renewed else "",
                    json.dumps(request.inputs),
                    self._settings.result_ttl_seconds,
                    self._owner or "",
                    "" if limits.concurrency is None else limits.concurrency,
                    "" if limits.quota is None else limits.quota,
                    fields["cost"],
                    len(pairs),
                    *pairs,
                    *record.rq_fields(job_id, self._unconnected),
                ],
            )
            span.set_attributes({"messaging.message.id": known_id, "kirazuri.outcome": outcome})
        if outcome == "conflict":
            raise IdempotencyConflict("the idempotency key was used before with another request")
        if outcome == "busy":
            raise TooManyJobs(limits.concurrency or 0, await self._retry_after())
        if outcome == "spent":
            raise QuotaSpent(limits.quota or 0, fields["cost"])
        if outcome == "full":
            raise QueueFull(self._settings.max_queue, await self._retry_after())
        if outcome == "removed":
            raise StoreError(f"image {known_id} is being removed just now; repeat the request")
        return await self.get(known_id)

    async def forget_key(self, idempotency_key: str, job_id: str) -> None:
        """Have the key make a new job next time; nothing where it stands for another by now."""
        key = record.idempotency_key(self._owner or "", idempotency_key)
        with unavailable_on_outage():
            if await self._redis.hget(key, "job") == job_id:
                await self._redis.delete(key)

    async def replay(
        self,
        job_id: str,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        cancel_after: float | None = None,
        limits: KeyLimits = UNLIMITED,
    ) -> Job:
        """Queue a succeeded job's request again, deterministic, to compare the pictures.

        Raises:
            JobNotSucceeded: it waits, runs, failed or was cancelled.
            JobNotFound, JobExpired: there is no such job any more.
            TooManyJobs, QuotaSpent, QueueFull, IdempotencyConflict, QueueUnavailable: as `admit`.
        """
        original = await self.get(job_id)
        if original.status != "succeeded":
            raise JobNotSucceeded(
                f"job {job_id} is {original.status}; only a succeeded one can be replayed"
            )
        return await self.admit(
            original.request.model_copy(update={"deterministic": True}),
            warnings=record.replay_warnings(original),
            idempotency_key=idempotency_key,
            fingerprint=f"replay of {job_id}",
            traceparent=traceparent,
            original=original,
            cancel_after=cancel_after,
            limits=limits,
        )

    async def _retry_after(self) -> int:
        """Seconds until a place in the queue is likely to be free, 1 to 120."""
        with unavailable_on_outage():
            job_cost = float(await self._redis.get(record.PACE) or 0)
        pace = (await self._measured_pace()).cost_per_second
        seconds = job_cost / pace if pace else 1.0
        return max(1, min(_MAX_RETRY_AFTER, round(seconds + 0.5)))

    # -- what the owner has ----------------------------------------------------------------------

    @property
    def belongings(self) -> OwnerIndex:
        """What the owner that this queue is narrowed to has."""
        return OwnerIndex(self._redis, self._owner or "")

    async def jobs(
        self, *, status: Status | None = None, most: int = 20, after: str | None = None
    ) -> tuple[list[Job], str | None]:
        """A page of the owner's jobs, newest first, and the cursor of the next one."""
        page = await self.belongings.jobs(status=status, most=most, after=after)
        found = await self._look_at(page.job_ids)
        return [job for job in found if job is not None], page.following  # else expired meanwhile

    # -- looking -----------------------------------------------------------------------------

    async def get(self, job_id: str) -> Job:
        """The job as it is now. JobNotFound, or JobExpired where the id is older than results."""
        _check_id(job_id)
        (job,) = await self._look_at([job_id])
        if job is None:
            raise self._missing(job_id)
        return job

    async def _look_at(self, job_ids: Sequence[str]) -> list[Job | None]:
        """Jobs as they are now, None for what is not the owner's; two round trips for all."""
        if not job_ids:
            return []
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipeline.hgetall(record.job_key(job_id))
            pipeline.zcard(record.RUNNING)
            pipeline.get(record.PACE)
            *records, running, job_cost = await pipeline.execute()
            records = [
                fields if fields and self._is_own(fields.get("owner", "")) else None
                for fields in records
            ]
            places = await self._places(dict(zip(job_ids, records, strict=True)))
        mean_cost = float(job_cost or 0) or None
        return [
            fields and await self._seen(job_id, fields, places.get(job_id), running, mean_cost)
            for job_id, fields in zip(job_ids, records, strict=True)
        ]

    async def _places(self, records: Mapping[str, Any]) -> dict[str, int | None]:
        """How many jobs lie before each queued one; None for one that was just taken."""
        queued = {
            job_id: fields.get("queue", record.RQ_QUEUES[-1])
            for job_id, fields in records.items()
            if fields and fields["status"] == "queued"
        }
        if not queued:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for job_id, queue in queued.items():
            pipeline.lpos(f"rq:queue:{queue}", job_id)
        return dict(zip(queued, await pipeline.execute(), strict=True))

    async def _seen(
        self,
        job_id: str,
        fields: dict[str, str],
        place: int | None,
        running: int,
        mean_cost: float | None,
    ) -> Job | None:
        """The job of a record, with the time that it will take where it waits."""
        job = record.read_job(job_id, fields, queue_position=place or 0)
        if job.status != "queued":
            return job
        if job.cancel_at and job.cancel_at.timestamp() < time.time() - _OVERDUE_SECONDS:
            # No worker is there to end it.
            await self._end(job_id, record.DEADLINE_NONCE)
            (ended,) = await self._look_at([job_id])
            return ended
        times = forecast(
            float(fields["cost"]),
            position=place or 0,
            running=running,
            mean_cost=mean_cost,
            pace=await self._measured_pace(),
        )
        return job.model_copy(update={"eta_seconds": times.eta_seconds})

    async def maker_of(self, name: str) -> Job | None:
        """The owner's job that last made the picture of this name, while results are kept.

        Raises:
            QueueUnavailable: Redis is away.
        """
        with unavailable_on_outage():
            job_id: Any = await self._redis.get(record.maker_key(self._owner or "", name))
        if job_id is None:
            return None
        with suppress(JobNotFound, JobExpired):
            return await self.get(job_id)
        return None

    async def forecast(self, request: ResolvedRequest) -> Eta:
        """When the request would be done if it were admitted now.

        Raises:
            QueueUnavailable: Redis is away.
        """
        with unavailable_on_outage():
            position, running, job_cost = await self._outlook(
                keys=record.script_keys(""), args=["", self._owner or ""]
            )
        return forecast(
            megapixel_steps(request),
            position=position,
            running=running,
            mean_cost=float(job_cost or 0) or None,
            pace=await self._measured_pace(),
        )

    def _is_own(self, owner: str) -> bool:
        return self._owner is None or self._owner == owner

    def _missing(self, job_id: str) -> JobNotFound | JobExpired:
        age = time.time() - ULID.from_str(job_id).timestamp
        if age > self._settings.result_ttl_seconds:
            return JobExpired(f"job {job_id} is older than results are kept")
        return JobNotFound(f"there is no job {job_id}")

    async def depth(self) -> tuple[int, int]:
        """How many jobs are queued and running."""
        with unavailable_on_outage():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zcard(record.QUEUED)
            pipeline.zcard(record.RUNNING)
            queued, running = await pipeline.execute()
        return int(queued), int(running)

    async def totals(self) -> dict[str, int]:
        """Jobs accepted, succeeded, failed, cancelled and retried since the queue was made."""
        with unavailable_on_outage():
            counted = await self._redis.hgetall(record.TOTALS)
        names = ("accepted", "succeeded", "failed", "cancelled", "retried")
        return {name: int(counted.get(name, 0)) for name in names}

    async def tallies(self) -> Counters:
        """All that was counted since the queue was made."""
        with unavailable_on_outage():
            return await read_tallies(self._redis)

    async def outbox(self) -> OutboxState:
        """Webhooks that wait, and what became of others."""
        with unavailable_on_outage():
            return await read_state(self._redis)

    async def workers(self) -> list[WorkerStatus]:
        """What the workers said of themselves within the last 15 seconds."""
        with unavailable_on_outage():
            names: Any = sorted(await self._redis.smembers(record.WORKERS))
            if not names:
                return []
            heartbeats = await self._redis.mget([record.worker_key(name) for name in names])
        return [WorkerStatus.model_validate_json(beat) for beat in heartbeats if beat]

    async def worker_metrics(self, names: Sequence[str]) -> dict[str, str]:
        """What these workers last said in numbers, each in Prometheus' text format."""
        if not names:
            return {}
        with unavailable_on_outage():
            texts: Any = await self._redis.mget([record.worker_metrics_key(name) for name in names])
        return {name: text for name, text in zip(names, texts, strict=True) if text}

    async def _measured_pace(self) -> Throughput:
        """What all live workers get through together; asked at most once a second."""
        if time.monotonic() - self._pace.asked_at > 1:
            workers = await self.workers()
            measured = [float(w.details.get("cost_per_second") or 0) for w in workers]
            self._pace.pace = Throughput(sum(measured), sum(one > 0 for one in measured))
            self._pace.asked_at = time.monotonic()
        return self._pace.pace

    # -- cancelling --------------------------------------------------------------------------

    async def cancel(self, job_id: str) -> Job:
        """End a queued job at once, a running one within its worker's next step.

        Raises:
            JobAlreadyFinished: it ended before.
            JobNotFound, JobExpired: there is no such job any more.
        """
        await self.get(job_id)  # its owner never changes, so looking before is enough
        outcome = await self._end(job_id, str(ULID()))
        if outcome == "missing":
            raise self._missing(job_id)
        job = await self.get(job_id)
        if outcome == "finished":
            raise JobAlreadyFinished(f"job {job_id} is already {job.status}")
        return job

    async def _end(self, job_id: str, nonce: str) -> str:
        with unavailable_on_outage():
            outcome: str = await self._cancel(
                keys=record.script_keys(job_id),
                args=[
                    job_id,
                    nonce,
                    self._settings.result_ttl_seconds,
                    record.EVENTS_TTL_SECONDS,
                ],
            )
        return outcome

    # -- following ---------------------------------------------------------------------------

    async def wait(self, job_id: str, seconds: float) -> Job:
        """The job when it has ended, or as it is after `seconds`."""
        deadline = time.monotonic() + seconds
        job = await self.get(job_id)
        if job.status in TERMINAL or seconds <= 0:
            return job
        async with self._hub.listen(job_id) as news:
            while True:
                news.clear()
                job = await self.get(job_id)
                left = deadline - time.monotonic()
                if job.status in TERMINAL or left <= 0:
                    return job
                await _news_or_timeout(news, min(left, _POLL_SECONDS))

    async def events(
        self, job_id: str, *, after: str | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """The job's events after the one with id `after`, then live ones, up to its end.

        Where history was trimmed, before or while the listener did something else, it is told by
        a `gap` event if it had seen some of it, and the current state takes the place of what is
        missing.

        Raises:
            JobNotFound, JobExpired: there is no such job any more.
        """
        async with aclosing(self.events_and_pauses(job_id, after=after)) as heard:
            async for event in heard:
                if event is not None:
                    yield event

    async def events_and_pauses(
        self, job_id: str, *, after: str | None = None
    ) -> AsyncGenerator[JobEvent | None, None]:
        """As `events`, with None for every five seconds in which there was no news."""
        _check_id(job_id)
        followed = follow(
            self._pages, self._hub, job_id, after=after, owner=self._owner, pause=_POLL_SECONDS
        )
        with unavailable_on_outage():
            async with aclosing(followed) as heard:
                try:
                    async for event in heard:
                        if event is None:
                            await self.get(job_id)  # ends it where its time is over
                        yield event
                except RecordMissing:
                    raise self._missing(job_id) from None

    async def has_heard_all(self, job_id: str, *, after: str | None) -> bool:
        """Whether nothing will ever follow the event with id `after`, the end of its job.

        Raises:
            JobNotFound, JobExpired: there is no such job any more.
        """
        _check_id(job_id)
        with unavailable_on_outage():
            page = await self._pages.read(job_id, after)
        if page is None or not self._is_own(page.owner):
            raise self._missing(job_id)
        return page.is_end


def _check_id(job_id: str) -> None:
    if not _JOB_ID.match(job_id):
        raise JobNotFound("there is no such job: an id has 26 characters")


async def _news_or_timeout(news: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except TimeoutError:
        return
