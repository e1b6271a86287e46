"""An RQ worker that keeps many jobs in one resident engine; the only file that knows RQ inside.

Main thread: claims jobs while there is room, renews leases, carries progress out and cancels in,
commits. The engine runs in a thread that never touches Redis; files are made in a third place.
Redis may go away at any time: the engine steps on and what it made is committed later.
"""

import logging
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty
from types import FrameType
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job as RqJob
from rq.registry import clean_registries
from rq.scripts import acquire_or_refresh_lock, release_lock
from rq.suspension import is_suspended
from rq.utils import as_text
from rq.utils import now as rq_now
from rq.worker.base import WorkerStatus as RqStatus

from model.engine.protocol import (
    EngineEvent,
    Failed,
    Finished,
    GenerationEngine,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.errors import InputMissing
from model.recipes.recipe import Recipe, recipe_of
from model.request import ResolvedRequest
from model.workload import work
from worker.errors import StoreError
from worker.images.encode import preview_url
from worker.images.input_images import HeldImages, Pixels
from worker.images.output_filter import OutputFilter, OutputFilterFailed, OutputRefused
from worker.images.signing import ImageSigner, SigningError
from worker.job import JobWarning, WorkerStatus
from worker.job_errors import job_error
from worker.queue import record
from worker.queue.worker_queue import Claim, Outcome, Report, WorkerQueue, read_claim
from worker.redis_io.client import is_outage
from worker.runtime.engine_thread import EngineThread
from worker.runtime.metrics import WorkerMetrics
from worker.runtime.publisher import PublishedImage, Publisher, StoreUnavailable
from worker.runtime.sweeper import Sweeper
from worker.settings import Settings
from worker.store.image_store import ImageStore
from worker.telemetry import tracing
from worker.telemetry.logs import about

logger = logging.getLogger(__name__)

EXIT_ENGINE_LOST = 70
"""The engine died or hangs: only a new process helps, the jobs follow by their leases."""

_POLL_SECONDS = 0.01
_IDLE_BLOCK_SECONDS = 0.25
_PUMP_SECONDS = 0.05
_OUTAGE_PAUSE_SECONDS = 0.2
_WORKER_TTL_SECONDS = 60
_PACE_DECAY = 0.9
_PLACES_PER_OWNERS = 2
"""A worker full of one owner's jobs has as many places for those of others."""
_METRICS_SECONDS = 5.0
"""Numbers are some kilobytes, and Prometheus asks every 15 seconds."""


class _Intermediate(IntermediateQueue):
    """RQ waits a fixed minute before it believes that a popped job was lost."""

    patience_seconds = 6.0

    def should_be_cleaned_up(self, job_id: str) -> bool:
        seen = self.get_first_seen(job_id)
        return seen is not None and (rq_now() - seen).total_seconds() > self.patience_seconds


class _LeasedQueue(Queue):
    """RQ's maintenance lock would outlive a dead holder by 15 minutes, and anyone may drop it."""

    lock_seconds = 12
    patience_seconds = 6.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock_token = uuid4().hex

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        queue = _Intermediate(self.key, connection=self.connection)
        queue.patience_seconds = self.patience_seconds
        return queue

    def acquire_maintenance_lock(self) -> bool:
        key, ttl = self.registry_cleaning_key, self.lock_seconds
        return acquire_or_refresh_lock(self.connection, key, self._lock_token, ttl) != "taken"

    def release_maintenance_lock(self) -> None:
        release_lock(self.connection, self.registry_cleaning_key, self._lock_token)


@dataclass(slots=True)
class _Slot:
    """A job that this worker holds, from claim to commit."""

    job_id: str
    token: str
    job: RqJob
    execution: Execution
    claim: Claim
    attempt: tracing.Attempt
    is_last_try: bool
    notes: list[Report] = field(default_factory=list)
    inputs: "Future[dict[str, Pixels]] | None" = None
    fault: BaseException | None = None
    pictures: dict[int, "Future[PublishedImage]"] = field(default_factory=dict)
    announced: set[int] = field(default_factory=set)
    warnings: tuple[JobWarning, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    admitted_at: float = field(default_factory=time.monotonic)
    step: int = 0
    end: Finished | Failed | None = None
    ended_at: float = 0.0
    is_cancelled: bool = False
    part_began: int = field(default_factory=time.time_ns)
    """When the part of the attempt that is under way began."""

    def about(self) -> AbstractContextManager[None]:
        """The ids of all that is logged of it."""
        return about(
            request=self.claim.request_id, trace_id=tracing.trace_id(self.attempt.traceparent)
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do but to commit."""
        if self.is_cancelled or self.fault or isinstance(self.end, Failed):
            return True
        return self.end is not None and all(f.done() for f in self.pictures.values())


class BatchWorker(SimpleWorker):
    """One engine, many jobs at once, every one under its own lease."""

    queue_class = _LeasedQueue

    def __init__(
        self,
        connection: "Redis",
        settings: Settings,
        *,
        engine_factory: Callable[[], GenerationEngine],
        store: ImageStore,
        inputs: HeldImages | None = None,
        signer: ImageSigner | None = None,
        output_filter: OutputFilter | None = None,
        version: str,
        warm_up: ResolvedRequest | None = None,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        name = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        super().__init__(
            list(record.RQ_QUEUES),
            name=name,
            connection=connection,
            serializer="json",
            log_job_description=False,
            prepare_for_work=False,  # it would ask Redis, which may be away at this moment
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        for queue in self.queues:
            queue.lock_seconds = math.ceil(2 * settings.lease_seconds)  # type: ignore[attr-defined]
            queue.patience_seconds = settings.lease_seconds  # type: ignore[attr-defined]
        self._settings = settings
        self._version = version
        self._die = die
        self._ledger = WorkerQueue(connection, settings)
        self._metrics = WorkerMetrics()
        self._engine = EngineThread(engine_factory, warm_up=warm_up, metrics=self._metrics)
        self._publisher = Publisher(
            store,
            signer=signer,
            output_filter=output_filter,
            patience=settings.store_patience_seconds,
            metrics=self._metrics,
        )
        self._shows_previews = output_filter is None  # which no filter would have looked at
        self._inputs = inputs or HeldImages()
        self._sweeper = Sweeper(store, self._ledger, result_ttl=settings.result_ttl_seconds)
        self._slots: dict[str, _Slot] = {}
        self._wants_solo = False
        self._is_suspended = False
        self._is_skewed = False
        self._stop_at: float | None = None
        self._last_beat: float | None = None
        self._last_pump = 0.0
        self._last_pick = 0.0
        self._metrics_told_at = -math.inf
        self._last_maintenance = 0.0
        self._grace_until = 0.0
        self._work_done, self._work_seconds, self._busy_seen = 0.0, 0.0, 0.0
        self._fresh_work = 0.0
        self._jobs_done = 0

    # -- the loop ----------------------------------------------------------------------------

    def work(self, *_: Any, **__: Any) -> bool:
        """Run until told to stop. RQ's own loop is never entered."""
        if threading.current_thread() is threading.main_thread():
            self._install_signal_handlers()  # type: ignore[no-untyped-call]
        self._engine.start()
        is_away = False
        while not self._is_done():
            self._watch_engine()
            self._feed()
            self._listen(_POLL_SECONDS if self._slots else 0)
            try:
                self._exchange()
                if is_away:
                    logger.info("worker=%s event=redis_back", self.name)
                is_away = False
            except (RedisError, OSError) as exc:
                if not is_outage(exc):
                    raise
                if not is_away:
                    logger.warning("worker=%s event=redis_away reason=%s", self.name, exc)
                is_away = True
                self._listen(_OUTAGE_PAUSE_SECONDS)
        self._sign_off()
        return True

    def stop(self) -> None:
        """Let running jobs finish for a while, then hand back the rest; a second call: at once."""
        now = time.monotonic()
        is_first = self._stop_at is None
        self._stop_at = now + (self._settings.drain_seconds if is_first else 0)
        self._stop_requested = True

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signals only leave a note: an exception here could break into any Redis call."""
        self.stop()

    def _is_done(self) -> bool:
        """Stopped, and nothing left, or no Redis to hand it back to for a whole lease."""
        if self._stop_at is None:
            return False
        overtime = time.monotonic() - self._stop_at
        return not self._slots or overtime > self._settings.lease_seconds

    def _exchange(self) -> None:
        """All that needs Redis, in one round of the loop."""
        now = time.monotonic()
        if self._last_beat is None or now - self._last_beat > self._settings.heartbeat_seconds:
            self._beat()
        if self._may_maintain(now):
            self._maintain()
        if now - self._last_pump > _PUMP_SECONDS:
            self._pump()
        self._settle()
        if self._stop_at is not None:
            if now > self._stop_at:
                self._hand_back()
        elif self._has_room():
            self._take()
        elif not self._slots:
            time.sleep(_POLL_SECONDS)

    # -- the engine --------------------------------------------------------------------------

    def _watch_engine(self) -> None:
        """End the process where the engine died, or where a step or a file takes too long."""
        if not self._engine.is_alive:
            logger.critical("worker=%s event=engine_lost reason=%s", self.name, self._engine.fault)
            self._die(EXIT_ENGINE_LOST)
        seconds = self._engine.step_seconds()
        if seconds > self._settings.hang_seconds:
            logger.critical("worker=%s event=engine_hangs step=%.1fs", self.name, seconds)
            self._die(EXIT_ENGINE_LOST)
        seconds = self._publisher.call_seconds()
        if seconds > self._settings.hang_seconds:
            logger.critical("worker=%s event=publishing_hangs seconds=%.1f", self.name, seconds)
            self._die(EXIT_ENGINE_LOST)

    def _listen(self, seconds: float) -> None:
        """Take in what the engine tells, waiting for the first word at most `seconds`."""
        try:
            token, event = self._engine.events.get(block=seconds > 0, timeout=seconds or None)
            while True:
                slot = self._slots.get(token)
                if slot and not slot.is_cancelled:
                    self._hear(slot, event)
                    _trace(slot, event)
                token, event = self._engine.events.get_nowait()
        except Empty:
            return

    def _hear(self, slot: _Slot, event: EngineEvent) -> None:
        match event:
            case Started():
                slot.timings["encode"] = round(event.seconds, 4)
                self._metrics.stage("encode", event.seconds)
                found = [JobWarning(code=w.code, detail=w.detail) for w in event.warnings]
                slot.warnings = tuple(dict.fromkeys([*slot.claim.warnings, *found]))
                fields = {"recipe": self._recipe.model_dump_json()}
                if found:
                    fields["warnings"] = record.dump_all(slot.warnings)
                slot.notes.append(Report(fields=fields))
            case StepDone():
                request, before = slot.claim.request, slot.step
                self._fresh_work += work(request, event.step) - work(request, before)
                if event.step > slot.step:  # a step may take two evaluations
                    self._metrics.sampled((event.step - before) * request.num_images)
                    elapsed = time.monotonic() - slot.admitted_at
                    slot.notes.append(_progress_note(event, elapsed, request))
                slot.step = event.step
            case Preview() if self._shows_previews:
                image = preview_url(event.pixels)
                data = {"image": image, "step": event.step, "index": event.index}
                slot.notes.append(Report(event="preview", data=data))
            case ImageReady():
                slot.pictures[event.index] = self._publisher.submit(
                    slot.token, event, slot.claim.request, self._recipe
                )
            case Finished() | Failed():
                if isinstance(event, Finished):
                    self._metrics.stage("denoise", event.denoise_seconds)
                    self._metrics.stage("decode", event.decode_seconds)
                slot.end, slot.ended_at = event, time.monotonic()

    @property
    def _recipe(self) -> Recipe:
        return recipe_of(self._engine.description, service=self._version)

    # -- claiming ----------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether another job may be taken now."""
        if not self._engine.is_warm or self._is_suspended or self._is_skewed:
            return False
        if self._publisher.is_down or self._publisher.waiting >= self._settings.max_unstored:
            return False
        if any(slot.is_last_try for slot in self._slots.values()):
            return False
        if self._wants_solo:
            return not self._slots
        return len(self._slots) < _PLACES_PER_OWNERS * self._settings.max_running

    def _take(self) -> None:
        """Take jobs while there is room; wait a moment for one where there is nothing to do."""
        block = None if self._slots else _IDLE_BLOCK_SECONDS
        while self._has_room():
            full = self._full_owners()
            popped = self._pick(full) if full else self._pop(block)
            if popped is None:
                return
            self._claim(*popped)
            block = None

    def _full_owners(self) -> set[str]:
        """Who has as many jobs here as one owner may have."""
        places = Counter(slot.claim.owner for slot in self._slots.values())
        return {owner for owner, n in places.items() if n >= self._settings.max_running}

    def _pick(self, full: set[str]) -> tuple[Queue, str] | None:
        """The next job of another owner; where there is none, it is not looked for all the time."""
        if time.monotonic() - self._last_pick < _PUMP_SECONDS:
            return None
        job_id = self._ledger.pick(full)
        if job_id is None:
            self._last_pick = time.monotonic()
            return None
        return self.queues[0], job_id

    def _pop(self, block: float | None) -> tuple[Queue, str] | None:
        """The next job's queue and id; waits only for one of this release, asks for older first."""
        newest, *older = self.queues
        for queue in (*older, newest):
            try:
                # RQ's method says int, Redis takes fractions.
                popped = self.queue_class.lmove(
                    self.connection,
                    queue.key,
                    block if queue is newest else None,  # type: ignore[arg-type]
                )
            except DequeueTimeout:
                return None
            if popped is not None:
                return queue, as_text(popped[1])
        return None

    def _claim(self, queue: Queue, job_id: str) -> None:
        """Lease and claim a popped job in one transaction; RQ's hash is written, never read."""
        job = RqJob(job_id, connection=self.connection, serializer=self.serializer)
        job.origin = queue.name
        began = time.time_ns()
        with self.connection.pipeline() as pipeline:
            ttl = self.get_heartbeat_ttl(job)
            execution = Execution.create(job, ttl, pipeline=pipeline, worker_name=self.name)
            job.prepare_for_execution(self.name, pipeline=pipeline)
            self.set_state(RqStatus.BUSY, pipeline=pipeline)
            self._ledger.claim(
                pipeline, job_id, execution.id, worker=self.name, is_alone=not self._slots
            )
            reply = pipeline.execute()[-1]
        try:
            claim = read_claim(reply)
        except ValueError as exc:
            logger.error("job=%s event=unreadable reason=%s", job_id, exc)  # noqa: TRY400
            error = job_error("unreadable", "this worker does not understand the job's record")
            claim = self._ledger.commit(job_id, execution.id, "failed", error=error)
        if isinstance(claim, str):
            logger.info("job=%s event=not_claimed reason=%s", job_id, claim)
            self._wants_solo = claim == "solo"
            self._let_go(job, execution)
            return
        self._wants_solo = False
        self._admit(job, execution, claim, began)

    def _admit(self, job: RqJob, execution: Execution, claim: Claim, began: int) -> None:
        for stale in [slot for slot in self._slots.values() if slot.job_id == job.id]:
            self._close(
                stale, "lost"
            )  # our own earlier lease, lost in an outage that we slept through
        self.executions[execution.id] = execution
        is_last_try = 1 < claim.attempt >= self._settings.max_attempts
        attempt = tracing.Attempt(
            job.id,
            parent=claim.traceparent,
            previous=claim.previous_span,
            began=began,
            attributes={
                "messaging.system": "rq",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.origin,
                "messaging.message.id": job.id,
                "kirazuri.worker": self.name,
                "kirazuri.attempt": claim.attempt,
                "kirazuri.images": claim.request.num_images,
                "kirazuri.steps": claim.request.steps,
                "kirazuri.size": f"{claim.request.width}x{claim.request.height}",
            },
        )
        attempt.part("claim", began)
        slot = _Slot(job.id, execution.id, job, execution, claim, attempt, is_last_try=is_last_try)
        if attempt.is_recording:
            slot.notes.append(Report(fields={"span": attempt.traceparent}))
        self._slots[slot.token] = slot
        if claim.request.inputs:
            slot.inputs = self._publisher.fetch(slot.token, claim.request.inputs)
        else:
            self._start(slot)
        waited = claim.started - claim.created
        with slot.about():
            logger.info(
                "job=%s event=started queue=%.1fs attempt=%d", job.id, waited, claim.attempt
            )

    def _feed(self) -> None:
        """Give the engine the jobs whose pictures to start from are there by now."""
        for slot in self._slots.values():
            if slot.inputs is None or slot.is_over or not slot.inputs.done():
                continue
            slot.fault = slot.inputs.exception()
            if slot.fault is None:
                slot.attempt.part("fetch inputs", slot.part_began)
                self._inputs.hold(slot.token, slot.inputs.result())
                slot.admitted_at = time.monotonic()
                self._start(slot)
            slot.inputs = None

    def _start(self, slot: _Slot) -> None:
        claim = slot.claim
        self._engine.admit(
            slot.token, slot.job_id, claim.request, owner=claim.owner, weight=claim.weight
        )

    def get_heartbeat_ttl(self, job: RqJob, working_time: float = 0.0) -> int:
        """The lease in whole seconds; RQ's own would be minutes."""
        return math.ceil(self._settings.lease_seconds)

    def _set_connection(self, connection: "Redis") -> "Redis":
        """Keep the short timeouts; RQ would raise them to minutes on the shared pool."""
        return connection

    # -- carrying news -----------------------------------------------------------------------

    def _pump(self) -> None:
        """News out and cancels in, for all jobs in one round trip."""
        self._last_pump = time.monotonic()
        if not self._slots:
            return
        sent: list[tuple[_Slot, list[Report]]] = []
        with self.connection.pipeline(transaction=False) as pipeline:
            for slot in self._slots.values():
                notes = self._news(slot)
                sent.append((slot, notes))
                for note in notes or [Report()]:
                    self._ledger.report(pipeline, slot.job_id, slot.token, note)
            replies = iter(pipeline.execute())
        for slot, notes in sent:
            answers = [next(replies) for _ in notes or [Report()]]
            self._told(slot, notes, answers)
            if b"lost" in answers:
                self._close(slot, "lost")
            elif b"cancel" in answers:
                self._engine.drop(slot.token, slot.job_id)
                slot.is_cancelled = True

    def _news(self, slot: _Slot) -> list[Report]:
        """What clients have not heard of a job yet: every step, every stored picture."""
        notes = list(slot.notes)
        for index, picture in sorted(slot.pictures.items()):
            if index not in slot.announced and picture.done() and not picture.exception():
                image, began = picture.result().image, picture.result().began
                data = image.model_dump(mode="json")
                notes.append(Report("image", data, image.name, image_began=began, index=index))
        return notes

    def _told(self, slot: _Slot, notes: list[Report], answers: list[bytes]) -> None:
        """Remember what went out; store again what was swept away before it was told of."""
        slot.notes.clear()
        for note, answer in zip(notes, answers, strict=False):
            if note.index is None:
                continue
            if answer == b"again":
                published = slot.pictures[note.index].result()
                slot.pictures[note.index] = self._publisher.again(slot.token, published)
            else:
                slot.announced.add(note.index)
                for part in slot.pictures[note.index].result().parts:
                    slot.attempt.part(*part, index=note.index)

    # -- ending ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Commit what is over."""
        over = [slot for slot in self._slots.values() if slot.is_over]
        if over and not all(slot.is_cancelled for slot in over):
            self._pump()  # the last progress and the pictures go before the end
        for slot in over:
            if slot.token in self._slots and slot.is_over:
                self._end(slot)

    def _end(self, slot: _Slot) -> None:
        with slot.about():
            self._conclude(slot)

    def _conclude(self, slot: _Slot) -> None:
        end = slot.end
        if slot.is_cancelled:
            self._close(slot, self._commit(slot, "cancelled"))
        elif slot.fault:
            self._give_up(slot, slot.fault)
        elif isinstance(end, Finished):
            broken = [exc for f in slot.pictures.values() if (exc := f.exception())]
            if broken:
                # What will never work counts for more than a store that is away.
                self._give_up(slot, min(broken, key=lambda exc: isinstance(exc, StoreUnavailable)))
            else:
                self._succeed(slot, end)
        elif isinstance(end, Failed):
            self._fail(slot, end)

    def _succeed(self, slot: _Slot, end: Finished) -> None:
        slot.timings["denoise"] = round(end.denoise_seconds, 4)
        slot.timings["decode"] = round(end.decode_seconds, 4)
        slot.timings["store"] = round(time.monotonic() - slot.ended_at, 4)
        images = [slot.pictures[index].result().image for index in sorted(slot.pictures)]
        status = self._commit(slot, "succeeded", images=images)
        self._close(slot, status, batch=end.mean_batch)

    def _give_up(self, slot: _Slot, exc: BaseException) -> None:
        """A picture could not be read or published. Where the store is away, no try is used."""
        if isinstance(exc, StoreUnavailable):
            logger.error("worker=%s event=store_down reason=%s", self.name, exc)
            status = self._ledger.release(slot.job_id, slot.token, "storage", is_free=True)
            self._close(slot, "retrying" if status == "released" else status, code="storage")
        else:
            self._fail(slot, _failure(slot.job_id, exc))

    def _fail(self, slot: _Slot, end: Failed) -> None:
        """Another try where one may help and is left; else the end."""
        if end.is_retryable and slot.claim.attempt < self._settings.max_attempts:
            status = self._ledger.release(slot.job_id, slot.token, end.code, is_free=False)
            self._close(slot, "retrying" if status == "released" else status, code=end.code)
            return
        status = self._commit(slot, "failed", error=job_error(end.code, end.detail))
        self._close(slot, status, code=end.code)

    def _commit(self, slot: _Slot, status: Outcome, **result: Any) -> str:
        began = time.time_ns()
        committed = self._ledger.commit(
            slot.job_id, slot.token, status, timings=slot.timings, **result
        )
        slot.attempt.part("commit", began)
        return committed

    def _hand_back(self) -> None:
        """Give unfinished jobs back, in their order, at the front of the queue; no try is used."""
        for slot in reversed(list(self._slots.values())):
            status = self._ledger.release(slot.job_id, slot.token, "worker_stopped", is_free=True)
            self._close(slot, status, code="worker_stopped")

    def _close(
        self, slot: _Slot, event: str, *, batch: float | None = None, code: str | None = None
    ) -> None:
        """Tell how it ended and forget a job; whoever lost it touches nothing but its own lease."""
        waited = slot.claim.started - slot.claim.created
        ran = time.time() - slot.claim.started
        with slot.about():
            logger.info(
                "job=%s event=%s queue=%.1fs run=%.1fs attempt=%d batch=%s code=%s",
                *(slot.job_id, event, waited, ran, slot.claim.attempt),
                *(batch and round(batch, 1), code),
            )
        slot.attempt.end(event, code)
        del self._slots[slot.token]
        self._publisher.abandon(slot.token)
        self._inputs.let_go(slot.token)
        if slot.end is None:
            self._engine.drop(slot.token, slot.job_id)
        self._let_go(slot.job, slot.execution)
        self._jobs_done += 1
        if self._jobs_done == self._settings.recycle_after_jobs:
            logger.info("worker=%s event=recycling jobs=%d", self.name, self._jobs_done)
            self.stop()

    def _let_go(self, job: RqJob, execution: Execution) -> None:
        """Remove our own lease from RQ, and nothing else: the job may be another worker's."""
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(job, pipeline, execution)
            if not self._slots:
                self.set_state(RqStatus.IDLE, pipeline=pipeline)
            pipeline.execute()

    # -- staying alive -----------------------------------------------------------------------

    def _beat(self) -> None:
        """Renew all leases, say what we are, look at the clock and at `rq suspend`."""
        began, lease = time.monotonic(), self._settings.lease_seconds
        if self._last_beat is None:
            self._register()
        often = self._settings.heartbeat_seconds
        if self._last_beat is None or began - self._last_beat > lease - often:
            # Redis may have been away so long that leases ran out which nobody could renew: others
            # must have the chance to, before anybody calls their jobs lost.
            self._grace_until = began + 2 * often + 1
        self._check_clock()
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipeline)
            for slot in self._slots.values():
                registry = slot.job.started_job_registry
                slot.execution.heartbeat(registry, math.ceil(lease), pipeline=pipeline)
            self._ledger.heartbeat(pipeline, self._status())
            if began - self._metrics_told_at > _METRICS_SECONDS:
                self._ledger.tell_metrics(pipeline, self.name, self._metrics.text())
                self._metrics_told_at = began
            is_forgotten = pipeline.execute()[0] == 1
        if is_forgotten:
            self._register()
        self._is_suspended = bool(is_suspended(self.connection))
        self._last_beat = time.monotonic()

    def _register(self) -> None:
        """Be seen by `rq info`. RQ's own method refuses a name that it wrote itself just before."""
        self.birth_date = self.birth_date or rq_now()
        self.last_heartbeat = rq_now()
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(self, pipeline)
            pipeline.expire(self.key, _WORKER_TTL_SECONDS)
            self.set_state(RqStatus.BUSY if self._slots else RqStatus.IDLE, pipeline=pipeline)
            pipeline.execute()

    def _check_clock(self) -> None:
        """RQ's leases are local times: a clock that is off would take jobs from healthy workers."""
        skew, limit = self._ledger.clock_skew(), self._settings.lease_seconds / 5
        is_skewed = abs(skew) > limit
        if is_skewed and not self._is_skewed:
            logger.error(
                "worker=%s event=clock_skew seconds=%.1f limit=%.1f: takes no jobs until the "
                "clocks agree",
                *(self.name, skew, limit),
            )
        self._is_skewed = is_skewed

    def _status(self) -> WorkerStatus:
        stats, about = self._engine.stats, self._engine.description
        step_seconds = self._engine.step_seconds()
        is_stalled = step_seconds > self._settings.stall_seconds
        return WorkerStatus(
            name=self.name,
            is_warm=self._engine.is_warm
            and not self._is_skewed
            and not is_stalled
            and not self._publisher.is_down
            and self._stop_at is None,
            seen_at=datetime.now(UTC),
            card=str(about.get("card", self._settings.card)),
            device=str(about.get("device", self._settings.device)),
            precision=str(about.get("precision", self._settings.precision)),
            running=len(self._slots),
            forwards=stats.forwards,
            evaluations=stats.evaluations,
            recipe=self._recipe if self._engine.is_warm else None,
            details={
                **about,
                "rows": stats.rows,
                "forward_seconds": round(stats.forward_seconds, 3),
                "shortages": stats.shortages,
                "step_seconds": round(step_seconds, 1),
                "unstored": self._publisher.waiting,
                "cost_per_second": self._pace(),
            },
        )

    def _pace(self) -> float:
        """Megapixels per second of late, from which clients' waiting times are estimated."""
        busy = self._engine.busy_seconds
        if self._fresh_work > 0:
            self._work_done = _PACE_DECAY * self._work_done + self._fresh_work
            self._work_seconds = _PACE_DECAY * self._work_seconds + busy - self._busy_seen
            self._fresh_work, self._busy_seen = 0.0, busy
        return round(self._work_done / self._work_seconds, 4) if self._work_seconds else 0.0

    # -- keeping order -----------------------------------------------------------------------

    def _may_maintain(self, now: float) -> bool:
        is_due = now - self._last_maintenance > self._settings.maintenance_seconds
        return is_due and now > self._grace_until and not self._is_skewed and self._stop_at is None

    def _maintain(self) -> None:
        """Hand on jobs whose worker is gone, let old pictures be swept; one worker at a time."""
        self._last_maintenance = time.monotonic()
        newest = self.queues[0]
        if not newest.acquire_maintenance_lock():
            return
        try:
            for queue in self.queues:
                clean_registries(queue)
                worker_registration.clean_worker_registry(queue)
                queue.intermediate_queue.cleanup(self, queue)
            for job_id in self._ledger.reconcile():
                logger.warning("job=%s event=restored reason=missing_in_rq", job_id)
            for job_id in self._ledger.end_overdue():
                logger.info("job=%s event=overdue", job_id)
            self._sweeper.wake()
        except (RedisError, OSError):
            raise
        except Exception:
            # Somebody's odd data in RQ's keys must not end the service.
            logger.exception("worker=%s event=maintenance_failed", self.name)
        finally:
            newest.release_maintenance_lock()  # type: ignore[no-untyped-call]

    def _sign_off(self) -> None:
        """Leave nothing behind that says we are still here."""
        self._engine.stop()
        self._publisher.stop()
        self._sweeper.stop()
        try:
            self._ledger.sign_off(self.name)
            self.register_death()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as exc:
            logger.warning("worker=%s event=not_signed_off reason=%s", self.name, exc)
        logger.info("worker=%s event=stopped", self.name)


def _trace(slot: _Slot, event: EngineEvent) -> None:
    """A part of the attempt for every stage of the engine that is over."""
    match event:
        case Started():
            slot.attempt.part("encode prompts", event.at - int(event.seconds * 1e9), event.at)
            slot.part_began = event.at
        case ImageReady():
            began = event.at - int(event.seconds * 1e9)
            slot.attempt.part("denoise", slot.part_began, began, index=event.index)
            slot.attempt.part("decode image", began, event.at, index=event.index)


def _progress_note(event: StepDone, elapsed: float, request: ResolvedRequest) -> Report:
    """News of a step; what is left is expected to go on as fast as in the past `elapsed` seconds.

    By work and not by steps: those of a second pass, at a higher resolution, take longer.
    """
    done, whole = work(request, event.step), work(request)
    eta = round(elapsed / done * (whole - done), 2) if done else 0.0
    return Report(
        event="progress",
        data={"step": event.step, "steps": event.steps, "eta_seconds": eta},
        fields={"step": event.step, "eta": round(time.time() + eta, 2)},
    )


def _failure(job_id: str, exc: BaseException) -> Failed:
    """A store may take or give it the next time; what cannot be read or encoded stays so."""
    if isinstance(exc, StoreError):
        return Failed(job_id, "storage", str(exc), is_retryable=True)
    if isinstance(exc, InputMissing):
        return Failed(job_id, "input_missing", str(exc), is_retryable=False)
    if isinstance(exc, SigningError):
        logger.error("job=%s event=not_signed reason=%s", job_id, exc)
        return Failed(job_id, "signing", "the picture cannot be signed", is_retryable=False)
    if isinstance(exc, OutputRefused):
        logger.info("job=%s event=output_refused reason=%s", job_id, exc)
        return Failed(job_id, "output_refused", str(exc), is_retryable=False)
    if isinstance(exc, OutputFilterFailed):
        logger.error("job=%s event=filter_broken reason=%s", job_id, exc, exc_info=exc)
        detail = "the picture was not looked at, and is not given out"
        return Failed(job_id, "filter_broken", detail, is_retryable=False)
    logger.error("job=%s cannot be encoded", job_id, exc_info=exc)
    detail = f"the picture cannot be encoded: {type(exc).__name__}"
    return Failed(job_id, "encoding", detail, is_retryable=False)
