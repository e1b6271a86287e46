"""The step engine: runs many requests at once, one model evaluation per step.

Every image is a sampler's generator that waits for an evaluation. A step selects a batch of
images, evaluates the model once for all of them and sends each generator its own result. Prompts,
input images, previews and pixels are computed beside the steps.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.engine.batching import Candidate, select_batch
from model.engine.beside import AtOnce, Beside, SideTask
from model.engine.failures import permanent_failure, retryable_failure, without_frames
from model.engine.guidance import denoise
from model.engine.launched import LaunchedForwards
from model.engine.oom_split import ChunkedForward
from model.engine.pipeline import Pipeline
from model.engine.protocol import (
    EngineEvent,
    EngineStats,
    Finished,
    Forward,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.engine.running_request import RunningRequest, UnfinishedImage
from model.engine.starting import Prepared, prepare
from model.errors import DeviceLost, NonFiniteLatents
from model.network.preview import is_preview_due
from model.resolved_request import ResolvedRequest

logger = logging.getLogger(__name__)

_MERGE_FORWARDS = 2
"""Cost of merging LoRAs into the transformer, in full forwards, for selecting a batch."""

_IDLE_SECONDS = 0.05
"""How long a step without an image to sample waits for the work beside it."""

_MEMORY_SECONDS = 1.0
"""Interval between two readings of the device's memory."""


class Engine:
    """Implements `GenerationEngine` on a resident model. Not thread-safe.

    `reading` and `finishing` run the work beside the steps, before and after an image is sampled.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        token_budget: int,
        reading: Beside | None = None,
        finishing: Beside | None = None,
    ) -> None:
        self.stats = EngineStats()
        self._pipeline = pipeline
        self._velocity = ChunkedForward(pipeline.velocity, pipeline.release_memory)
        self._token_budget = token_budget
        self._running: dict[str, RunningRequest] = {}
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="lora-hashes")
        self._hashes: dict[str, Future[None]] = {}
        self._reading = reading or AtOnce()
        self._finishing = finishing or AtOnce()
        self._tasks: list[SideTask] = []
        self._launched = LaunchedForwards()
        self._memory_read_at = -math.inf
        # A GPU computes while the host prepares its next work: its results are read a step later.
        self._lag = 0 if pipeline.device.type == "cpu" else 1

    def description(self) -> dict[str, Any]:
        """The checkpoint's hashes, the device and the precision."""
        return dict(self._pipeline.description)

    def admit(
        self, job_id: str, request: ResolvedRequest, *, owner: str = "", weight: float = 1.0
    ) -> None:
        """Add a request. Its work starts with the next step. ValueError if the id is known."""
        if job_id in self._running:
            raise ValueError(f"job {job_id} is in the engine already")
        self._running[job_id] = RunningRequest(request, owner, weight)
        loras = self._pipeline.loras
        if not loras.knows_hashes(request.loras):  # a large file takes seconds: the others go on
            self._hashes[job_id] = self._hashing.submit(loras.read_hashes, request.loras)

    def cancel(self, job_id: str) -> None:
        """Remove a request at once. Unknown ids are ignored."""
        if hashes := self._hashes.pop(job_id, None):
            hashes.cancel()
        running = self._running.pop(job_id, None)
        if running:
            for image in running.images.values():
                image.trajectory.close()

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Evaluate the model for a batch, and use what was computed beside earlier steps.

        A request starts when the hashes of its LoRA files are known and its prompts are encoded.
        """
        events: list[EngineEvent] = []
        self.stats.latest = ()
        for job_id in self._preparable():
            self._isolate(job_id, self._prepare, events)
        self._use_results(events)
        batch = self._select_batch()
        if batch:
            self._run_batch(batch, events)
        else:
            self._confirm(events, keep=0)
        self._use_results(events)
        if time.monotonic() - self._memory_read_at > _MEMORY_SECONDS:
            self._memory_read_at = time.monotonic()
            self.stats.memory = self._pipeline.memory()
        return events

    # -- beside the steps --------------------------------------------------------------------

    def _use_results(self, events: list[EngineEvent]) -> None:
        """Use the results of work that has ended. Waits a moment if there is nothing to sample."""
        futures = [task.future for task in self._tasks] + list(self._hashes.values())
        if futures and not self._waiting():
            wait(futures, timeout=_IDLE_SECONDS, return_when=FIRST_COMPLETED)
        for task in list(self._tasks):
            if task.future.done() and task.after <= self._launched.confirmed:
                self._tasks.remove(task)
                if self._running.get(task.job_id) is task.running:
                    self._isolate(task.job_id, self._use, events, task)

    def _use(self, job_id: str, events: list[EngineEvent], task: SideTask) -> None:
        task.use(events, task.future.result())
        if job_id in self._running and not task.running.images:
            self._end(job_id, events)

    def _submit(
        self,
        beside: Beside,
        job_id: str,
        work: Callable[[], Any],
        use: Callable[[list[EngineEvent], Any], None],
        *inputs: Tensor,
    ) -> None:
        """Run work beside the steps; its result is used when all steps so far are confirmed."""
        future = beside.submit(work, *inputs)
        running, after = self._running[job_id], self._launched.count
        self._tasks.append(SideTask(job_id, running, future, use, after))

    # -- starting ----------------------------------------------------------------------------

    def _preparable(self) -> list[str]:
        """The requests that wait for nothing but their preparation."""
        return [
            job_id
            for job_id, running in self._running.items()
            if not running.is_preparing
            and (job_id not in self._hashes or self._hashes[job_id].done())
        ]

    def _prepare(self, job_id: str, events: list[EngineEvent]) -> None:
        """Read input images and encode prompts beside the steps."""
        if hashes := self._hashes.pop(job_id, None):
            hashes.result()
        running = self._running[job_id]
        running.is_preparing = True
        work = partial(prepare, running.request, self._pipeline)
        self._submit(self._reading, job_id, work, partial(self._start, job_id))

    def _start(self, job_id: str, events: list[EngineEvent], prepared: Prepared) -> None:
        """Run each sampler up to its first evaluation."""
        running = self._running[job_id]
        running.plan, running.loras = prepared.plan, prepared.loras
        running.prompts = prepared.prompts
        events.append(Started(job_id, prepared.warnings, prepared.seconds))
        for index, (seed, trajectory) in enumerate(prepared.images):
            running.images[index] = UnfinishedImage(
                job_id, index, seed, prepared.plan, trajectory, prepared.plan.evaluations
            )
        for image in list(running.images.values()):
            self._resume(job_id, image, None)

    # -- stepping ----------------------------------------------------------------------------

    def _waiting(self) -> dict[tuple[str, int], UnfinishedImage]:
        """The images that wait for an evaluation."""
        return {
            (job_id, image.index): image
            for job_id, running in self._running.items()
            for image in running.images.values()
            if not image.is_sampled
        }

    def _select_batch(self) -> list[UnfinishedImage]:
        """The images that take part in this step. The others grow more urgent."""
        waiting = self._waiting()
        selected = select_batch(
            [self._candidate(key, image) for key, image in waiting.items()],
            token_budget=max(1, int(min(self._token_budget, self._velocity.max_tokens))),
        )
        batch = [waiting.pop(candidate.key) for candidate in selected]
        for image in waiting.values():
            image.waited += 1
        return batch

    def _candidate(
        self, key: tuple[str, int], image: UnfinishedImage
    ) -> Candidate[tuple[str, int]]:
        running = self._running[image.job_id]
        is_merged = self._pipeline.loras.is_merged(running.loras)
        return Candidate(
            key=key,
            shape=(image.x.shape[-2], image.x.shape[-1]),
            rows=running.rows,
            remaining=image.remaining,
            waited=image.waited,
            group=_batch_group(running, key),
            setup=0 if is_merged else _MERGE_FORWARDS * self._token_budget,
            owner=running.owner,
            weight=running.weight,
        )

    def _run_batch(self, batch: list[UnfinishedImage], events: list[EngineEvent]) -> None:
        """Evaluate the model for the batch. If the forward fails, retry each image alone."""
        began = time.perf_counter()
        try:
            results = self._denoise(batch)
        except Exception as exc:  # noqa: BLE001 - the batch's border: a fault must name its request
            failure = exc
        else:
            self._launched.add(batch, results, began)
            self._confirm(events, keep=self._lag)
            for image, denoised in zip(batch, results, strict=True):
                self._isolate(image.job_id, self._advance, events, image, denoised)
            return
        # Outside the handler: the failed forward's tensors must not take a retry's memory.
        self._check_device(without_frames(failure))
        if len(batch) == 1:
            self._fail(batch[0].job_id, failure, events)
            return
        self._pipeline.release_memory()
        logger.warning("a forward of %d images failed (%s); one by one", len(batch), failure)
        for image in batch:
            if image.job_id in self._running:
                self._run_batch([image], events)

    def _denoise(self, batch: list[UnfinishedImage]) -> list[Tensor]:
        """Evaluate the model once. All images of a batch use the same LoRAs."""
        first = self._running[batch[0].job_id]
        self._pipeline.loras.use_in_transformer(first.loras)
        for job_id in {image.job_id for image in batch}:
            running = self._running[job_id]
            # Once per request, and only now: a LoRA may change how the transformer reads.
            running.texts = running.texts or tuple(map(self._pipeline.read_text, running.prompts))
        inputs = [self._running[image.job_id].denoise_input(image) for image in batch]
        results = denoise(self._velocity, inputs, is_row_by_row=first.request.deterministic)
        self.stats.rows += sum(len(one.texts) for one in inputs)
        return results

    def _confirm(self, events: list[EngineEvent], *, keep: int) -> None:
        """Wait for all forwards but the latest `keep`, and report their progress."""
        for forward in self._launched.read(keep=keep):
            batch = forward.batch
            self._count_forward(batch, forward.seconds)
            for image, sigma, is_finite in zip(
                batch, forward.sigmas, forward.are_finite, strict=True
            ):
                image.confirmed += 1
                if not is_finite:
                    self._isolate(image.job_id, _refuse_non_finite, events, image.seed, sigma)
            events += [
                StepDone(job_id, running.finished_steps(), running.steps)
                for job_id in dict.fromkeys(image.job_id for image in batch)
                if (running := self._running.get(job_id))
            ]

    def _count_forward(self, batch: Sequence[UnfinishedImage], seconds: float) -> None:
        self.stats.forwards += 1
        self.stats.shortages = self._velocity.shortages
        self.stats.evaluations += len(batch)
        self.stats.forward_seconds += seconds
        height, width = (side * self._pipeline.scale_factor for side in batch[0].x.shape[-2:])
        self.stats.latest += (Forward(width, height, len(batch), seconds),)
        for job_id in {image.job_id for image in batch}:
            if running := self._running.get(job_id):
                running.forwards += 1
                running.batched += len(batch)
                running.denoise_seconds += seconds

    def _advance(
        self, job_id: str, events: list[EngineEvent], image: UnfinishedImage, denoised: Tensor
    ) -> None:
        """Send an image its result; make a preview if one is due."""
        image.remaining -= 1
        running = self._running[job_id]
        if running.request.previews and is_preview_due(image.remaining, image.plan.evaluations):
            step = running.step_of(image, image.plan.evaluations - image.remaining)
            self._submit(
                self._finishing,
                job_id,
                partial(self._pipeline.preview, denoised),
                lambda events, pixels: events.append(Preview(job_id, image.index, step, pixels)),
                denoised,
            )
        self._resume(job_id, image, denoised)

    def _resume(self, job_id: str, image: UnfinishedImage, denoised: Tensor | None) -> None:
        """Run a sampler up to its next evaluation, or begin to decode. None starts it."""
        try:
            image.x, image.sigma = image.trajectory.send(denoised)  # type: ignore[arg-type]
        except StopIteration as result:
            image.is_sampled = True
            work = partial(_timed, image.plan.finish, result.value, self._pipeline.codec())
            use = partial(self._deliver, job_id, image)
            self._submit(self._finishing, job_id, work, use, result.value)

    def _deliver(
        self,
        job_id: str,
        image: UnfinishedImage,
        events: list[EngineEvent],
        decoded: tuple[Any, float],
    ) -> None:
        """Hand over an image's pixels."""
        pixels, seconds = decoded
        running = self._running[job_id]
        running.decode_seconds += seconds
        del running.images[image.index]
        events.append(ImageReady(job_id, image.index, image.seed, pixels, seconds))

    def _end(self, job_id: str, events: list[EngineEvent]) -> None:
        """Emit the end of a request after its last image."""
        running = self._running.pop(job_id)
        if not running.forwards:  # it sampled nothing
            events.append(StepDone(job_id, running.steps, running.steps))
        mean_batch = running.batched / max(1, running.forwards)
        events.append(Finished(job_id, running.denoise_seconds, running.decode_seconds, mean_batch))

    # -- failing -----------------------------------------------------------------------------

    def _isolate(
        self, job_id: str, action: Callable[..., None], events: list[EngineEvent], *values: Any
    ) -> None:
        """Run a part of one request's work. An exception fails that request alone."""
        if job_id not in self._running:
            return
        try:
            action(job_id, events, *values)
        except Exception as exc:  # noqa: BLE001 - the request's border: the others continue
            failure = exc
        else:
            return
        self._fail(job_id, without_frames(failure), events)

    def _fail(self, job_id: str, exc: Exception, events: list[EngineEvent]) -> None:
        """Remove a request and emit why. Must be called outside of the exception's handler."""
        self.cancel(job_id)
        failed = permanent_failure(job_id, exc)
        if failed is None:
            self._check_device(exc)
            failed = retryable_failure(job_id, exc)
            if isinstance(exc, torch.OutOfMemoryError):
                self._pipeline.release_memory()
        events.append(failed)

    def _check_device(self, exc: Exception) -> None:
        """Raise DeviceLost if a fault broke the device: only a new process can use it again."""
        try:
            self._pipeline.check_device()
        except RuntimeError as broken:
            raise DeviceLost(f"after {type(exc).__name__}: {broken}") from exc


def _batch_group(running: RunningRequest, key: tuple[str, int]) -> Hashable:
    """Images of equal groups may share a forward. A deterministic image has its own group.

    A forward has one set of weights. The size of a batch selects kernels, and these round
    differently in the last bits.
    """
    return running.loras, key if running.request.deterministic else None


def _refuse_non_finite(job_id: str, events: list[EngineEvent], seed: int, sigma: float) -> None:
    raise NonFiniteLatents(f"the model gave NaN or infinity at sigma {sigma:.4f} for seed {seed}")


def _timed(work: Callable[..., Any], *values: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(*values), time.perf_counter() - began
