"""The worker's control loop: keeps many jobs in one resident engine.

It runs in the main thread and is the only part that writes job records; engine, publisher and
sweeper have their own threads. While Redis is away the engine continues; the loop commits later.

What the loop needs of Redis goes together in one round trip, 10 to 20 times a second while jobs
run. Only a job whose record cannot be read is ended by a call of its own. Between round trips the
loop sleeps until the engine or the publisher has news.
"""

import logging
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from queue import Empty
from types import FrameType
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError

from model.engine.protocol import GenerationEngine
from model.resolved_request import ResolvedRequest
from worker.images.input_images import HeldImages
from worker.images.output_filter import OutputFilter
from worker.images.signing import ImageSigner
from worker.job_errors import job_error
from worker.queue.image_removal import ImageRemoval
from worker.queue.layout import redis_keys
from worker.queue.owner_index import OldRecords
from worker.queue.worker_queue import Report, Unreadable, WorkerQueue, read_claims
from worker.redis_io.client import is_outage
from worker.runtime.engine_thread import EngineThread
from worker.runtime.heartbeat import Heartbeat
from worker.runtime.metrics import WorkerMetrics
from worker.runtime.publisher import Publisher
from worker.runtime.round_trip import RoundTrip
from worker.runtime.rq_adapter import Lease, RqAdapter
from worker.runtime.slot import Ending, Slot, WorkerParts
from worker.runtime.sweeper import Sweeper
from worker.runtime.throughput import ThroughputMeter
from worker.runtime.watchdog import Watchdog
from worker.settings import Settings
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 0.05
_ROUND_SECONDS_PER_JOB = 0.0125
_LONGEST_ROUND_SECONDS = 0.1
"""Round trips take time from the engine's steps, more of it with more jobs."""

_IDLE_MILLISECONDS = 250
_OUTAGE_PAUSE_SECONDS = 0.2
_SLOTS_PER_OWNER_SLOT = 2
"""A worker that is full of one owner's jobs has as many slots for the jobs of others."""


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
        warm_up: Sequence[ResolvedRequest] = (),
        checkpoint: str = "",
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self.connection = connection
        self.slots: dict[str, Slot] = {}
        self._settings = settings
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
            on_done=self.engine.wake,
        )
        self._watchdog = Watchdog(
            self.name, settings, engine=self.engine, publisher=self.publisher, die=die
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
            checkpoint=checkpoint,
        )
        removal = ImageRemoval(connection)
        old_records = OldRecords(connection)
        self._sweeper = Sweeper(store, removal, old_records, result_ttl=settings.result_ttl_seconds)
        self._heartbeat = Heartbeat(self._parts, settings, self._rq)
        self._stop_at: float | None = None
        self._ended_leases: list[Lease] = []
        self._tokens: list[str] = []
        self._last_wake = "$"
        self._last_round = -math.inf
        self._last_maintenance = 0.0
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
            self._watchdog.check()
            for slot in self.slots.values():
                slot.enter_when_ready()
            self._handle_events(0 if self._is_idle() else self._seconds_to_round())
            if not self._is_round_due():
                continue
            try:
                self._make_round()
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
        """Only set a mark: an exception here could interrupt any Redis call.

        Wakes the loop: Python 3.11 forgets how long to wait for an event if this runs too late.
        """
        self.stop()
        self.engine.wake()

    def _is_done(self) -> bool:
        """Stopped, and either no job is left or Redis was away for a whole lease."""
        if self._stop_at is None:
            return False
        overtime = time.monotonic() - self._stop_at
        return not self.slots or overtime > self._settings.lease_seconds

    def _handle_events(self, seconds: float) -> None:
        """Pass the engine's events to their slots; wait up to `seconds` for the first one."""
        try:
            news = self.engine.events.get(block=seconds > 0, timeout=seconds or None)
            while True:
                if news and (slot := self.slots.get(news[0])):
                    slot.handle(news[1])
                news = self.engine.events.get_nowait()
        except Empty:
            return

    # -- one round trip to Redis -------------------------------------------------------------

    def _is_idle(self) -> bool:
        """Whether there is nothing to do but to wait for a job."""
        return not self.slots and self._has_room()

    def _seconds_to_round(self) -> float:
        """Time until the next round trip, if nothing makes it due before."""
        pause = max(_ROUND_SECONDS, _ROUND_SECONDS_PER_JOB * len(self.slots))
        left = self._last_round + min(pause, _LONGEST_ROUND_SECONDS) - time.monotonic()
        return max(0.0, left)

    def _is_round_due(self) -> bool:
        is_over = any(slot.is_over for slot in self.slots.values())
        return is_over or self._is_idle() or self._seconds_to_round() == 0

    def _make_round(self) -> None:
        """Do everything in one round trip that needs Redis.

        If jobs end before the next round is due, the reports on the others wait for it.
        """
        now, is_due = time.monotonic(), self._seconds_to_round() == 0
        if is_due:
            self._last_round = now
        trip = RoundTrip(self.connection)
        has_heartbeat = self._heartbeat.is_due(now)
        if has_heartbeat:
            leases = [slot.lease for slot in self.slots.values()]
            is_stopping = self._stop_at is not None
            self._heartbeat.add(trip, leases, now=now, is_stopping=is_stopping)
        if self._may_maintain(now):
            self._last_maintenance = now
            self._queue.maintain(trip.pipeline)
            trip.then(self._read_repairs)
        self._add_ended_leases(trip)
        endings = self._due_endings()
        reported = [slot for slot in self.slots.values() if is_due or slot.token in endings]
        self._add_reports(trip, reported, endings)
        self._add_endings(trip, endings)
        if self._has_room():
            if not self.slots and not has_heartbeat:
                self._wait_for_news(trip)
            self._add_claim(trip, endings)
        trip.send()

    def _due_endings(self) -> dict[str, Ending]:
        """The ends, by token, of the jobs that are over now, or of all if time is up."""
        is_late = self._stop_at is not None and time.monotonic() > self._stop_at
        return {
            slot.token: slot.ending if slot.is_over else slot.hand_back()
            for slot in self.slots.values()
            if slot.is_over or is_late
        }

    def _add_reports(
        self, trip: RoundTrip, slots: Sequence[Slot], endings: dict[str, Ending]
    ) -> None:
        """Report on jobs, and ask whether they are cancelled."""
        running = [slot for slot in slots if not slot.is_cancelled]
        pending = [(slot, slot.pending_reports() or [Report()]) for slot in running]
        if not pending:
            return
        self._queue.report(
            trip.pipeline,
            [(slot.job_id, slot.token, report) for slot, reports in pending for report in reports],
        )

        def read(replies: list[list[bytes]]) -> None:
            answers = iter(replies[0])
            for slot, reports in pending:
                own = list(islice(answers, len(reports)))
                slot.confirm(reports, own)
                if slot.token in endings:
                    continue  # the reply to its ending says how it ended
                if b"lost" in own:
                    self._close(slot, "lost")
                elif b"cancel" in own:
                    slot.cancel()

        trip.then(read)

    def _add_endings(self, trip: RoundTrip, endings: dict[str, Ending]) -> None:
        """End jobs, after their last reports. If one of these says `again`, the job goes on."""
        # Jobs that return go to the front of the queue, in their order.
        for token, ending in reversed(endings.items()):
            self._add_ending(trip, self.slots[token], ending)

    def _add_ending(self, trip: RoundTrip, slot: Slot, ending: Ending) -> None:
        began = time.time_ns()
        ending.write(pipeline=trip.pipeline)

        def read(replies: list[bytes]) -> None:
            outcome = replies[0].decode()
            if outcome == "again":
                return
            if outcome == "released" and ending.is_retry:
                outcome = "retrying"
            self._close(slot, outcome, ending, began=began)

        trip.then(read)

    def _close(
        self, slot: Slot, outcome: str, ending: Ending | None = None, *, began: int = 0
    ) -> None:
        """Forget a job that ended or that another worker has by now."""
        del self.slots[slot.token]
        slot.close(outcome, ending, began=began)
        self._ended_leases.append(slot.lease)
        self._jobs_done += 1
        if self._jobs_done == self._settings.recycle_after_jobs:
            logger.info("worker=%s event=recycling jobs=%d", self.name, self._jobs_done)
            self.stop()

    def _add_ended_leases(self, trip: RoundTrip) -> None:
        """Remove what RQ shows of jobs that ended in an earlier round."""
        for lease in self._ended_leases:
            self._rq.end_lease(trip.pipeline, lease)
        trip.then(lambda _: self._ended_leases.clear())

    # -- claiming ----------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether another job may be taken now."""
        if self._stop_at is not None or not self.engine.is_warm or not self._heartbeat.may_claim:
            return False
        if self.publisher.is_down or self.publisher.pending >= self._settings.max_unstored:
            return False
        if any(slot.claim.must_be_alone for slot in self.slots.values()):
            return False
        return len(self.slots) < _SLOTS_PER_OWNER_SLOT * self._settings.max_running

    def _wait_for_news(self, trip: RoundTrip) -> None:
        """Let Redis hold the rest of the round trip until a job may have come, or a moment."""
        wait = ("XREAD", "BLOCK", _IDLE_MILLISECONDS, "STREAMS", redis_keys.WAKE, self._last_wake)
        trip.pipeline.execute_command(*wait)  # type: ignore[no-untyped-call]
        trip.then(self._read_news)

    def _read_news(self, replies: list[Any]) -> None:
        if replies[0]:
            ((_, entries),) = replies[0]
            self._last_wake = entries[-1][0]

    def _add_claim(self, trip: RoundTrip, endings: dict[str, Ending]) -> None:
        """Claim as many jobs as there will be places after this round.

        A claim without an answer is repeated with the same tokens, so that no job is forgotten.
        """
        staying = [slot for slot in self.slots.values() if slot.token not in endings]
        places = _SLOTS_PER_OWNER_SLOT * self._settings.max_running - len(staying)
        missing = range(places - len(self._tokens))
        self._tokens = [*self._tokens, *(uuid4().hex for _ in missing)][:places]
        began = time.time_ns()
        self._queue.claim(
            trip.pipeline,
            self._tokens,
            worker=self.name,
            checkpoints=self._parts.checkpoints(),
            running=Counter(slot.claim.owner for slot in staying),
        )
        trip.then(lambda replies: self._read_claims(replies[0], began))

    def _read_claims(self, reply: list[list[bytes]], began: int) -> None:
        claims = read_claims(reply)
        if claims:
            self._last_wake = "$"  # older news are of no use once this worker is idle again
        if not self.slots:
            self._last_round = time.monotonic()  # Redis may have held this one for long
        used = {claim.token for claim in claims}
        self._tokens = [token for token in self._tokens if token not in used]
        for claim in claims:
            if isinstance(claim, Unreadable):
                logger.error("job=%s event=unreadable reason=%s", claim.job_id, claim.reason)
                error = job_error("unreadable", "this worker does not understand the job's record")
                self._queue.commit(claim.job_id, claim.token, "failed", error=error)
                continue
            # This worker may have lost an earlier lease on the same job in an outage.
            for stale in [slot for slot in self.slots.values() if slot.job_id == claim.job_id]:
                self._close(stale, "lost")
            lease = self._rq.lease(claim.queue, claim.job_id, claim.token)
            slot = self.slots[claim.token] = Slot(self._parts, lease, claim, began=began)
            slot.begin()

    # -- maintenance and the end of the process ----------------------------------------------

    def _may_maintain(self, now: float) -> bool:
        is_due = now - self._last_maintenance > self._settings.maintenance_seconds
        return is_due and self._stop_at is None and self._heartbeat.may_repair(now)

    def _read_repairs(self, replies: list[Any]) -> None:
        repairs = self._queue.read_repairs(replies[0])
        for job_id in repairs.restored:
            logger.warning("job=%s event=restored reason=missing_in_rq", job_id)
        for job_id in repairs.overdue:
            logger.info("job=%s event=overdue", job_id)
        self._sweeper.wake()

    def _sign_off(self) -> None:
        """Stop all threads and remove this worker from Redis."""
        self.engine.stop()
        self.publisher.stop()
        self._sweeper.stop()
        trip = RoundTrip(self.connection)
        self._add_ended_leases(trip)
        self._queue.remove_worker(trip.pipeline, self.name)
        self._rq.unregister(trip.pipeline)
        trip.then(lambda _: None)
        try:
            trip.send()
        except (RedisError, OSError) as exc:
            logger.warning("worker=%s event=not_signed_off reason=%s", self.name, exc)
        logger.info("worker=%s event=stopped", self.name)
