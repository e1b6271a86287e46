"""A slot: one job that this worker holds, from claim to commit.

A slot turns the engine's events into reports for clients, collects the job's images and says how
the job ends: with its result, or back in the queue. The control loop drives it and sends all that.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from model.engine.protocol import (
    EngineEvent,
    Failed,
    Finished,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.errors import InputMissing
from model.recipes.recipe import Recipe, build_recipe
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.errors import StoreError
from worker.images.encode import preview_data_url
from worker.images.input_images import HeldImages, Pixels
from worker.images.output_filter import OutputFilterFailed, OutputRefused
from worker.images.signing import SigningError
from worker.job import Checkpoint, JobWarning
from worker.job_errors import job_error
from worker.queue.layout import record
from worker.queue.worker_queue import Claim, FinalStatus, Report, WorkerQueue
from worker.runtime.engine_thread import EngineThread
from worker.runtime.metrics import WorkerMetrics
from worker.runtime.publisher import PublishedImage, Publisher, StoreUnavailable
from worker.runtime.rq_adapter import Lease
from worker.runtime.throughput import ThroughputMeter
from worker.telemetry import tracing
from worker.telemetry.logs import log_context

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker that its slots use."""

    name: str
    queue: WorkerQueue
    engine: EngineThread
    publisher: Publisher
    inputs: HeldImages
    metrics: WorkerMetrics
    throughput: ThroughputMeter
    version: str
    max_attempts: int
    has_previews: bool
    checkpoint: str

    def checkpoints(self) -> list[Checkpoint]:
        """What this worker runs: jobs of its card, with or without the hash of its file."""
        about = self.engine.description
        card = str(about.get("card", ""))
        return [(card, self.checkpoint or str(about.get("checkpoint", ""))), (card, "")]

    def recipe(self, path: str = "") -> Recipe:
        """What this worker adds to a request: checkpoint, precision, version, and a job's path."""
        return build_recipe(self.engine.description, service=self.version, path=path)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a slot ends: the call of the queue, the failure's code, the mean batch size.

    `write` takes a `pipeline`; a job whose release `is_retry` has another attempt.
    """

    write: Callable[..., str]
    code: str | None = None
    batch: float | None = None
    is_retry: bool = False


class Slot:
    """One job of this worker."""

    def __init__(self, parts: WorkerParts, lease: Lease, claim: Claim, *, began: int) -> None:
        self.job_id, self.token = claim.job_id, claim.token
        self.lease, self.claim = lease, claim
        self.is_cancelled = False
        self._parts = parts
        self._span = _attempt_span(parts.name, lease, claim, began)
        self._span.add_stage("claim", began)
        self._reports: list[Report] = []
        if self._span.is_recording:
            self._reports.append(Report(fields={"span": self._span.traceparent}))
        self._inputs: Future[dict[str, Pixels]] | None = None
        self._input_error: BaseException | None = None
        self._images: dict[int, Future[PublishedImage]] = {}
        self._reported_images: set[int] = set()
        self._warnings: tuple[JobWarning, ...] = ()
        self._timings: dict[str, float] = {}
        self._step = 0
        self._path = ""
        self._engine_since = time.monotonic()
        self._engine_end: Finished | Failed | None = None
        self._engine_end_at = 0.0
        self._stage_began = time.time_ns()

    @property
    def is_over(self) -> bool:
        """Whether the job can be ended now."""
        if self.is_cancelled or self._input_error or isinstance(self._engine_end, Failed):
            return True
        return self._engine_end is not None and all(f.done() for f in self._images.values())

    def _log_ids(self) -> AbstractContextManager[None]:
        """Adds the ids of the request to all log lines inside."""
        return log_context(
            request=self.claim.request_id, trace_id=tracing.trace_id_of(self._span.traceparent)
        )

    # -- into the engine ---------------------------------------------------------------------

    def begin(self) -> None:
        """Fetch the job's input images; give a job without any to the engine."""
        if self.claim.request.inputs:
            self._inputs = self._parts.publisher.fetch(self.token, self.claim.request.inputs)
        else:
            self._enter_engine()
        waited = self.claim.started - self.claim.created
        with self._log_ids():
            logger.info(
                "job=%s event=started queue=%.1fs attempt=%d",
                *(self.job_id, waited, self.claim.attempt),
            )

    def enter_when_ready(self) -> None:
        """Give the job to the engine once its input images are fetched."""
        if self._inputs is None or self.is_over or not self._inputs.done():
            return
        self._input_error = self._inputs.exception()
        if self._input_error is None:
            self._span.add_stage("fetch inputs", self._stage_began)
            self._parts.inputs.hold(self.token, self._inputs.result())
            self._engine_since = time.monotonic()
            self._enter_engine()
        self._inputs = None

    def _enter_engine(self) -> None:
        claim = self.claim
        self._parts.engine.admit(
            self.token, self.job_id, claim.request, owner=claim.owner, weight=claim.weight
        )

    # -- events ------------------------------------------------------------------------------

    def handle(self, event: EngineEvent) -> None:
        """Take in an event of the engine."""
        if self.is_cancelled:
            return
        match event:
            case Started():
                self._handle_started(event)
            case StepDone():
                self._handle_step(event)
            case Preview() if self._parts.has_previews:
                image = preview_data_url(event.pixels)
                data = {"image": image, "step": event.step, "index": event.index}
                self._reports.append(Report(event="preview", data=data))
            case ImageReady():
                self._images[event.index] = self._parts.publisher.publish(
                    self.token, event, self.claim.request, self._parts.recipe(self._path)
                )
                began = event.at - int(event.seconds * 1e9)
                self._span.add_stage("denoise", self._stage_began, began, index=event.index)
                self._span.add_stage("decode image", began, event.at, index=event.index)
            case Finished() | Failed():
                if isinstance(event, Finished):
                    self._parts.metrics.observe_stage("denoise", event.denoise_seconds)
                    self._parts.metrics.observe_stage("decode", event.decode_seconds)
                self._engine_end, self._engine_end_at = event, time.monotonic()

    def _handle_started(self, event: Started) -> None:
        self._timings["encode"] = round(event.seconds, 4)
        self._parts.metrics.observe_stage("encode", event.seconds)
        found = [JobWarning(code=w.code, detail=w.detail) for w in event.warnings]
        self._warnings = tuple(dict.fromkeys([*self.claim.warnings, *found]))
        self._path = event.path
        fields = {"recipe": self._parts.recipe(event.path).model_dump_json()}
        if found:
            fields["warnings"] = record.dump_all(self._warnings)
        self._reports.append(Report(fields=fields))
        self._span.add_stage("encode prompts", event.at - int(event.seconds * 1e9), event.at)
        self._stage_began = event.at

    def _handle_step(self, event: StepDone) -> None:
        request, before = self.claim.request, self._step
        self._parts.throughput.add(
            megapixel_steps(request, event.step) - megapixel_steps(request, before)
        )
        if event.step > before:  # a step may take two evaluations
            self._parts.metrics.count_sampling_steps((event.step - before) * request.num_images)
            elapsed = time.monotonic() - self._engine_since
            self._reports.append(_progress_report(event, elapsed, request))
        self._step = event.step

    # -- reports -----------------------------------------------------------------------------

    def pending_reports(self) -> list[Report]:
        """Reports that are not written yet: all steps, all stored images."""
        reports = list(self._reports)
        for index, image in sorted(self._images.items()):
            if index not in self._reported_images and image.done() and not image.exception():
                published = image.result()
                data, name = published.image.model_dump(mode="json"), published.image.name
                reports.append(
                    Report("image", data, name, image_began=published.began, index=index)
                )
        return reports

    def confirm(self, reports: Sequence[Report], replies: Sequence[bytes]) -> None:
        """Remember which reports were written.

        An image whose file was deleted in the meantime is stored again and reported later.
        """
        self._reports.clear()
        for report, reply in zip(reports, replies, strict=False):
            if report.index is None:
                continue
            published = self._images[report.index].result()
            if reply == b"again":
                self.__dict__.pop("ending", None)  # it counted on the file
                self._images[report.index] = self._parts.publisher.store_again(
                    self.token, published
                )
            else:
                self._reported_images.add(report.index)
                for stage in published.stages:
                    self._span.add_stage(*stage, index=report.index)

    # -- the end -----------------------------------------------------------------------------

    def cancel(self) -> None:
        """Stop the job; its `ending` is that of a cancelled one."""
        self._parts.engine.drop(self.token, self.job_id)
        self.is_cancelled = True

    @cached_property
    def ending(self) -> Ending:
        """The end of the job that is over: a commit, or its return for another attempt."""
        with self._log_ids():
            if self.is_cancelled:
                return self._commit("cancelled")
            if self._input_error:
                return self._end_by(self._input_error)
            match self._engine_end:
                case Failed() as failure:
                    return self._fail(failure)
                case Finished() as end:
                    return self._publish(end)
                case None:
                    raise RuntimeError(f"job {self.job_id} is not over")

    def hand_back(self) -> Ending:
        """The return of the unfinished job because the worker stops; this uses up no attempt."""
        return self._release("worker_stopped", is_free=True)

    def close(self, outcome: str, ending: Ending | None = None, *, began: int = 0) -> None:
        """Log the end and drop the job from the worker's parts; writes nothing to Redis.

        `ending` was written from `began` on; there is none if another worker has the job.
        """
        code, batch = (ending.code, ending.batch) if ending else (None, None)
        if ending:
            self._span.add_stage("commit", began)
        waited = self.claim.started - self.claim.created
        ran = time.time() - self.claim.started
        with self._log_ids():
            logger.info(
                "job=%s event=%s queue=%.1fs run=%.1fs attempt=%d batch=%s code=%s",
                *(self.job_id, outcome, waited, ran, self.claim.attempt),
                *(batch and round(batch, 1), code),
            )
        self._span.end(outcome, code)
        self._parts.publisher.abandon(self.token)
        self._parts.inputs.release(self.token)
        if self._engine_end is None:
            self._parts.engine.drop(self.token, self.job_id)

    def _publish(self, end: Finished) -> Ending:
        broken = [exc for image in self._images.values() if (exc := image.exception())]
        if broken:
            # A lasting error counts for more than an unavailable store.
            return self._end_by(min(broken, key=lambda exc: isinstance(exc, StoreUnavailable)))
        self._timings["denoise"] = round(end.denoise_seconds, 4)
        self._timings["decode"] = round(end.decode_seconds, 4)
        self._timings["store"] = round(time.monotonic() - self._engine_end_at, 4)
        images = [self._images[index].result().image for index in sorted(self._images)]
        return self._commit("succeeded", batch=end.mean_batch, images=images)

    def _end_by(self, exc: BaseException) -> Ending:
        """The end of the job after an error with one of its images."""
        if isinstance(exc, StoreUnavailable):
            logger.error("worker=%s event=store_down reason=%s", self._parts.name, exc)
            return self._release("storage", is_free=True, is_retry=True)
        return self._fail(_failure(self.job_id, exc))

    def _fail(self, failure: Failed) -> Ending:
        if failure.is_retryable and self.claim.attempt < self._parts.max_attempts:
            return self._release(failure.code, is_free=False, is_retry=True)
        error = job_error(failure.code, failure.detail)
        return self._commit("failed", code=failure.code, error=error)

    def _release(self, code: str, *, is_free: bool, is_retry: bool = False) -> Ending:
        """The return of the job to the queue. If that is free, this attempt does not count."""
        release = partial(self._parts.queue.release, self.job_id, self.token, code, is_free=is_free)
        return Ending(release, code, is_retry=is_retry)

    def _commit(
        self,
        status: FinalStatus,
        *,
        code: str | None = None,
        batch: float | None = None,
        **result: Any,
    ) -> Ending:
        commit = partial(
            self._parts.queue.commit,
            self.job_id,
            self.token,
            status,
            timings=self._timings,
            **result,
        )
        return Ending(commit, code, batch)


def _attempt_span(worker: str, lease: Lease, claim: Claim, began: int) -> tracing.AttemptSpan:
    return tracing.AttemptSpan(
        lease.job.id,
        parent=claim.traceparent,
        previous=claim.previous_span,
        began=began,
        attributes={
            "messaging.system": "rq",
            "messaging.operation.type": "process",
            "messaging.destination.name": lease.job.origin,
            "messaging.message.id": lease.job.id,
            "kirazuri.worker": worker,
            "kirazuri.attempt": claim.attempt,
            "kirazuri.images": claim.request.num_images,
            "kirazuri.steps": claim.request.steps,
            "kirazuri.size": f"{claim.request.width}x{claim.request.height}",
        },
    )


def _progress_report(event: StepDone, elapsed: float, request: ResolvedRequest) -> Report:
    """Progress and the remaining time, if the rest goes as fast as the past `elapsed` seconds.

    Measured by work and not by steps: steps of a second pass, at a higher resolution, take longer.
    """
    done, whole = megapixel_steps(request, event.step), megapixel_steps(request)
    eta = round(elapsed / done * (whole - done), 2) if done else 0.0
    return Report(
        event="progress",
        data={"step": event.step, "steps": event.steps, "eta_seconds": eta},
        fields={"step": event.step, "eta": round(time.time() + eta, 2)},
    )


def _failure(job_id: str, exc: BaseException) -> Failed:
    """The failure for an error with an image. Only errors of the store may pass."""
    if isinstance(exc, StoreError):
        return Failed(job_id, "storage", str(exc), is_retryable=True)
    if isinstance(exc, InputMissing):
        return Failed(job_id, "input_missing", str(exc), is_retryable=False)
    if isinstance(exc, SigningError):
        logger.error("job=%s event=not_signed reason=%s", job_id, exc)
        return Failed(job_id, "signing", "the image cannot be signed", is_retryable=False)
    if isinstance(exc, OutputRefused):
        logger.info("job=%s event=output_refused reason=%s", job_id, exc)
        return Failed(job_id, "output_refused", str(exc), is_retryable=False)
    if isinstance(exc, OutputFilterFailed):
        logger.error("job=%s event=filter_broken reason=%s", job_id, exc, exc_info=exc)
        detail = "the output filter failed; the image was not checked and is withheld"
        return Failed(job_id, "filter_broken", detail, is_retryable=False)
    logger.error("job=%s cannot be encoded", job_id, exc_info=exc)
    detail = f"the image cannot be encoded: {type(exc).__name__}"
    return Failed(job_id, "encoding", detail, is_retryable=False)
