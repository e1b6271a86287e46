"""The worker's control loop: keeps many jobs in one resident engine.

The loop runs in the main thread and is the only part that writes to Redis for jobs. The engine and
the publisher have their own threads. While Redis is unreachable the engine continues, and the loop
commits the results later.
"""

import logging
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import Empty
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from model.engine.protocol import GenerationEngine
from model.resolved_request import ResolvedRequest
from worker.images.input_images import HeldImages
from worker.images.output_filter import OutputFilter
from worker.images.signing import ImageSigner
from worker.job_errors import job_error
from worker.queue.image_removal import ImageRemoval
from worker.queue.owner_index import OldRecords
from worker.queue.worker_queue import Report, WorkerQueue, read_claim
from worker.redis_io.client import is_outage
from worker.runtime.engine_thread import EngineThread
from worker.runtime.metrics import WorkerMetrics
from worker.runtime.publisher import Publisher
from worker.runtime.rq_adapter import RqAdapter
from worker.runtime.slot import Ending, Slot, WorkerParts
from worker.runtime.status import worker_status
from worker.runtime.sweeper import Sweeper
from worker.runtime.throughput import ThroughputMeter
from worker.settings import Settings
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

EXIT_ENGINE_LOST = 70
"""Exit code after the engine died or hangs: only a new process helps."""

_POLL_SECONDS = 0.01
_REPORT_SECONDS = 0.05
_OUTAGE_PAUSE_SECONDS = 0.2
_SLOTS_PER_OWNER_SLOT = 2
"""A worker that is full of one owner's jobs has as many slots for the jobs of others."""
_METRICS_SECONDS = 5.0


class BatchWorker:
    """Runs many jobs at once in one engine; each job has its own lease."""

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
        self.connection = connection
        self.slots: dict[str, Slot] = {}
        self._settings = settings
        self._die = die
        self._rq = RqAdapter(connection, lease_seconds=settings.lease_seconds)
        self.name = self._rq.name
        self._queue = WorkerQueue(connection, settings)
        self._metrics = WorkerMetrics()
        self.engine = EngineThread(engine_factory, warm_up=warm_up, metrics=self._metrics)
        self.publisher = Publisher(
            store,
            signer=signer,
            output_filter=output_filter,
            patience=settings.store_patience_seconds,
            metrics=self._metrics,
        )
        self.inputs = inputs or HeldImages()
        self._parts = WorkerParts(
            name=self.name,
            queue=self._queue,
            engine=self.engine,
            publisher=self.publisher,
            inputs=self.inputs,
            metrics=self._metrics,
            throughput=ThroughputMeter(),
            version=version,
            max_attempts=settings.max_attempts,
            has_previews=output_filter is None,  # the filter does not check previews
        )
        removal = ImageRemoval(connection)
        old_records = OldRecords(connection)
        self._sweeper = Sweeper(store, removal, old_records, result_ttl=settings.result_ttl_seconds)
        self._wants_empty_engine = False
        self._is_suspended = False
        self._is_skewed = False
        self._stop_at: float | None = None
        self._last_heartbeat: float | None = None
        self._last_report = 0.0
        self._last_pick = 0.0
        self._last_metrics = -math.inf
        self._last_maintenance = 0.0
        self._no_maintenance_until = 0.0
        self._jobs_done = 0

    # -- the loop ----------------------------------------------------------------------------

    def work(self) -> None:
        """Run until stopped."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle_signal)
            signal.signal(signal.SIGTERM, self._handle_signal)
        self.engine.start()
        is_redis_down = False
        while not self._is_done():
            self._watch_engine()
            for slot in self.slots.values():
                slot.enter_when_ready()
            self._handle_events(_POLL_SECONDS if self.slots else 0)
            try:
                self._run_redis_tasks()
                if is_redis_down:
                    logger.info("worker=%s event=redis_back", self.name)
                is_redis_down = False
            except (RedisError, OSError) as exc:
                if not is_outage(exc):
                    raise
                if not is_redis_down:
                    logger.warning("worker=%s event=redis_away reason=%s", self.name, exc)
                is_redis_down = True
                self._handle_events(_OUTAGE_PAUSE_SECONDS)
        self._sign_off()

    def stop(self) -> None:
        """Let running jobs finish for `drain_seconds`; a second call hands them back at once."""
        is_first = self._stop_at is None
        self._stop_at = time.monotonic() + (self._settings.drain_seconds if is_first else 0)

    def _handle_signal(self, signum: int, frame: FrameType | None) -> None:
        """Only set a mark: an exception here could interrupt any Redis call."""
        self.stop()

    def _is_done(self) -> bool:
        """Stopped, and either no job is left or Redis was away for a whole lease."""
        if self._stop_at is None:
            return False
        overtime = time.monotonic() - self._stop_at
        return not self.slots or overtime > self._settings.lease_seconds

    def _run_redis_tasks(self) -> None:
        """Do everything in one round that needs Redis."""
        now, last = time.monotonic(), self._last_heartbeat
        if last is None or now - last > self._settings.heartbeat_seconds:
            self._heartbeat()
        if self._may_maintain(now):
            self._maintain()
        if now - self._last_report > _REPORT_SECONDS:
            self._exchange_reports()
        self._finish_jobs()
        if self._stop_at is not None:
            if now > self._stop_at:
                self._hand_back()
        elif self._has_room():
            self._take_jobs()
        elif not self.slots:
            time.sleep(_POLL_SECONDS)

    # -- the engine --------------------------------------------------------------------------

    def _watch_engine(self) -> None:
        """End the process if the engine died, or if a step or a file takes too long."""
        if not self.engine.is_alive:
            logger.critical("worker=%s event=engine_lost reason=%s", self.name, self.engine.fault)
            self._die(EXIT_ENGINE_LOST)
        seconds = self.engine.step_seconds()
        if seconds > self._settings.hang_seconds:
            logger.critical("worker=%s event=engine_hangs step=%.1fs", self.name, seconds)
            self._die(EXIT_ENGINE_LOST)
        seconds = self.publisher.call_seconds()
        if seconds > self._settings.hang_seconds:
            logger.critical("worker=%s event=publishing_hangs seconds=%.1f", self.name, seconds)
            self._die(EXIT_ENGINE_LOST)

    def _handle_events(self, seconds: float) -> None:
        """Pass the engine's events to their slots; wait up to `seconds` for the first one."""
        try:
            token, event = self.engine.events.get(block=seconds > 0, timeout=seconds or None)
            while True:
                if slot := self.slots.get(token):
                    slot.handle(event)
                token, event = self.engine.events.get_nowait()
        except Empty:
            return

    # -- claiming ----------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether another job may be taken now."""
        if not self.engine.is_warm or self._is_suspended or self._is_skewed:
            return False
        if self.publisher.is_down or self.publisher.pending >= self._settings.max_unstored:
            return False
        if any(slot.is_last_attempt for slot in self.slots.values()):
            return False
        if self._wants_empty_engine:
            return not self.slots
        return len(self.slots) < _SLOTS_PER_OWNER_SLOT * self._settings.max_running

    def _take_jobs(self) -> None:
        """Take jobs while there is room; after a miss, wait a moment before the next try."""
        while self._has_room() and time.monotonic() - self._last_pick >= _REPORT_SECONDS:
            picked = self._queue.pick(self._full_owners())
            if picked is None:
                self._last_pick = time.monotonic()
                break
            self._claim(*picked)
        if not self.slots:
            time.sleep(_POLL_SECONDS)

    def _full_owners(self) -> set[str]:
        """Owners that have as many jobs here as one owner may have."""
        counts = Counter(slot.claim.owner for slot in self.slots.values())
        return {owner for owner, n in counts.items() if n >= self._settings.max_running}

    def _claim(self, queue: str, job_id: str) -> None:
        """Lease and claim a popped job in one transaction."""
        began = time.time_ns()
        with self.connection.pipeline() as pipeline:
            lease = self._rq.add_lease(pipeline, queue, job_id)
            self._queue.claim(
                pipeline, job_id, lease.token, worker=self.name, is_alone=not self.slots
            )
            reply = pipeline.execute()[-1]
        try:
            claim = read_claim(reply)
        except ValueError as exc:
            logger.error("job=%s event=unreadable reason=%s", job_id, exc)  # noqa: TRY400
            error = job_error("unreadable", "this worker does not understand the job's record")
            claim = self._queue.commit(job_id, lease.token, "failed", error=error)
        if isinstance(claim, str):
            logger.info("job=%s event=not_claimed reason=%s", job_id, claim)
            self._wants_empty_engine = claim == "solo"
            self._rq.end_lease(lease, is_idle=not self.slots)
            return
        self._wants_empty_engine = False
        # This worker may have lost an earlier lease on the same job in an outage.
        for stale in [slot for slot in self.slots.values() if slot.job_id == job_id]:
            self._close(stale, Ending("lost"))
        slot = Slot(self._parts, lease, claim, began=began)
        self.slots[slot.token] = slot
        slot.begin()

    # -- reports and ends --------------------------------------------------------------------

    def _exchange_reports(self) -> None:
        """Write the reports of all jobs and read their cancellations, in one round trip."""
        self._last_report = time.monotonic()
        if not self.slots:
            return
        sent: list[tuple[Slot, list[Report]]] = []
        with self.connection.pipeline(transaction=False) as pipeline:
            for slot in self.slots.values():
                reports = slot.pending_reports()
                sent.append((slot, reports))
                for report in reports or [Report()]:
                    self._queue.report(pipeline, slot.job_id, slot.token, report)
            replies = iter(pipeline.execute())
        for slot, reports in sent:
            answers = [next(replies) for _ in reports or [Report()]]
            slot.confirm(reports, answers)
            if b"lost" in answers:
                self._close(slot, Ending("lost"))
            elif b"cancel" in answers:
                slot.cancel()

    def _finish_jobs(self) -> None:
        """End the jobs that are over."""
        over = [slot for slot in self.slots.values() if slot.is_over]
        if over and not all(slot.is_cancelled for slot in over):
            self._exchange_reports()  # the last progress and the images go before the end
        for slot in over:
            if slot.token in self.slots and slot.is_over:
                self._close(slot, slot.finish())

    def _hand_back(self) -> None:
        """Give unfinished jobs back to the front of the queue, in their order."""
        for slot in reversed(list(self.slots.values())):
            self._close(slot, slot.hand_back())

    def _close(self, slot: Slot, ending: Ending) -> None:
        """Forget a job that ended or that another worker has by now."""
        del self.slots[slot.token]
        slot.close(ending)
        self._rq.end_lease(slot.lease, is_idle=not self.slots)
        self._jobs_done += 1
        if self._jobs_done == self._settings.recycle_after_jobs:
            logger.info("worker=%s event=recycling jobs=%d", self.name, self._jobs_done)
            self.stop()

    # -- heartbeat ---------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        """Renew all leases, publish the status, check the server, the clock and `rq suspend`."""
        began, last = time.monotonic(), self._last_heartbeat
        interval = self._settings.heartbeat_seconds
        if last is None:
            self._rq.register(is_busy=bool(self.slots))
        if last is None or began - last > self._settings.lease_seconds - interval:
            # During a long outage of Redis all leases expire, because nobody can renew them. All
            # workers must have time to renew them before any worker declares their jobs lost.
            self._no_maintenance_until = began + 2 * interval + 1
        self._check_clock()
        is_accepting = self._queue.check_server() and not self._is_skewed and self._stop_at is None
        status = worker_status(
            self._parts, self._settings, running=len(self.slots), is_accepting=is_accepting
        )
        with self.connection.pipeline(transaction=False) as pipeline:
            self._rq.add_heartbeat(pipeline, [slot.lease for slot in self.slots.values()])
            self._queue.heartbeat(pipeline, status)
            if began - self._last_metrics > _METRICS_SECONDS:
                self._queue.send_metrics(pipeline, self.name, self._metrics.text())
                self._last_metrics = began
            is_registration_lost = self._rq.is_registration_lost(pipeline.execute())
        if is_registration_lost:
            self._rq.register(is_busy=bool(self.slots))
        self._is_suspended = self._rq.is_suspended()
        self._last_heartbeat = time.monotonic()

    def _check_clock(self) -> None:
        """RQ's leases are local times: a wrong clock would take jobs from healthy workers."""
        skew, limit = self._queue.clock_skew(), self._settings.lease_seconds / 5
        is_skewed = abs(skew) > limit
        if is_skewed and not self._is_skewed:
            logger.error(
                "worker=%s event=clock_skew seconds=%.1f limit=%.1f: takes no jobs until the "
                "clocks agree",
                *(self.name, skew, limit),
            )
        self._is_skewed = is_skewed

    # -- maintenance and the end of the process ----------------------------------------------

    def _may_maintain(self, now: float) -> bool:
        is_due = now - self._last_maintenance > self._settings.maintenance_seconds
        may_reap = now > self._no_maintenance_until and not self._is_skewed
        return is_due and may_reap and self._stop_at is None

    def _maintain(self) -> None:
        """Requeue jobs of lost workers, end overdue jobs, start a sweep; one worker at a time."""
        self._last_maintenance = time.monotonic()
        with self._rq.maintenance_lock() as is_held:
            if not is_held:
                return
            try:
                self._rq.requeue_lost_jobs()
                for job_id in self._queue.reconcile():
                    logger.warning("job=%s event=restored reason=missing_in_rq", job_id)
                for job_id in self._queue.cancel_overdue():
                    logger.info("job=%s event=overdue", job_id)
                self._sweeper.wake()
            except (RedisError, OSError):
                raise
            except Exception:
                # Unexpected data in RQ's keys must not end the service.
                logger.exception("worker=%s event=maintenance_failed", self.name)

    def _sign_off(self) -> None:
        """Stop all threads and remove this worker from Redis."""
        self.engine.stop()
        self.publisher.stop()
        self._sweeper.stop()
        try:
            self._queue.remove_worker(self.name)
            self._rq.unregister()
        except (RedisError, OSError) as exc:
            logger.warning("worker=%s event=not_signed_off reason=%s", self.name, exc)
        logger.info("worker=%s event=stopped", self.name)
