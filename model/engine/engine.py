"""The step engine: runs many requests at once, one model evaluation per step.

Every image is a sampler's generator that waits for an evaluation. A step selects a batch of
images, evaluates the model once for all of them and sends each generator its own result.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from model.engine.batching import Candidate, select_batch
from model.engine.failures import permanent_failure, retryable_failure
from model.engine.guidance import denoise
from model.engine.image_plan import image_trajectory, plan_images
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
from model.errors import DeviceLost, NonFiniteLatents
from model.network.preview import is_preview_due
from model.network.text_encoder import EncodedPrompt
from model.prompting.lint import cut_warning
from model.prompting.tokens import TokenCount
from model.request import MAX_SEED, RequestWarning
from model.resolved_request import ResolvedRequest

logger = logging.getLogger(__name__)

_MERGE_FORWARDS = 2
"""Cost of merging LoRAs into the transformer, in full forwards, for selecting a batch."""

_READ_SECONDS = 0.05
"""How long a step without other work waits for the hashes of LoRA files."""

_MEMORY_SECONDS = 1.0
"""Interval between two readings of the device's memory."""


class Engine:
    """Implements `GenerationEngine` on a resident model. Not thread-safe."""

    def __init__(self, pipeline: Pipeline, *, token_budget: int) -> None:
        self.stats = EngineStats()
        self._pipeline = pipeline
        self._velocity = ChunkedForward(pipeline.velocity)
        self._token_budget = token_budget
        self._running: dict[str, RunningRequest] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="lora-hashes")
        self._reading: dict[str, Future[None]] = {}
        self._memory_read_at = -math.inf

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
            self._reading[job_id] = self._reader.submit(loras.read_hashes, request.loras)

    def cancel(self, job_id: str) -> None:
        """Remove a request at once. Unknown ids are ignored."""
        if reading := self._reading.pop(job_id, None):
            reading.cancel()
        running = self._running.pop(job_id, None)
        if running:
            for image in running.images.values():
                image.trajectory.close()

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Start the requests admitted since the last step, then evaluate the model for a batch.

        A request starts when the hashes of its LoRA files are known.
        """
        events: list[EngineEvent] = []
        self.stats.latest = ()
        if self._reading and not any(running.images for running in self._running.values()):
            wait(self._reading.values(), timeout=_READ_SECONDS, return_when=FIRST_COMPLETED)
        for job_id in self._startable():
            self._isolate(job_id, self._start, events)
        batch = self._select_batch()
        if batch:
            self._run_batch(batch, events)
        if time.monotonic() - self._memory_read_at > _MEMORY_SECONDS:
            self._memory_read_at = time.monotonic()
            self.stats.memory = self._pipeline.memory()
        return events

    # -- starting ----------------------------------------------------------------------------

    def _startable(self) -> list[str]:
        """The requests that wait for nothing but their start."""
        return [
            job_id
            for job_id, running in self._running.items()
            if not running.is_started
            and (job_id not in self._reading or self._reading[job_id].done())
        ]

    def _start(self, job_id: str, events: list[EngineEvent]) -> None:
        """Encode the prompts, draw the noise and run each sampler up to its first evaluation."""
        if reading := self._reading.pop(job_id, None):
            reading.result()
        running = self._running[job_id]
        request, began = running.request, time.perf_counter()
        codec = self._pipeline.codec()
        plan = running.plan = plan_images(request, self._pipeline.read_image, codec)
        seeds = [(request.seed + index) % (MAX_SEED + 1) for index in range(request.num_images)]
        # The noise is drawn in another thread while the prompts are encoded.
        trajectories = [image_trajectory(request, plan, codec, seed=seed) for seed in seeds]
        in_text, running.loras = self._pipeline.loras.split(request.loras)
        self._pipeline.loras.use_in_text(in_text)
        prompts = {"prompt": self._pipeline.encode(request.prompt)}
        if request.cfg_scale != 1:
            prompts["negative_prompt"] = self._pipeline.encode(request.negative_prompt)
        running.prompts = tuple(prompts.values())
        running.is_started = True
        warnings = tuple(_cut_warnings(prompts.items()))
        events.append(Started(job_id, warnings, time.perf_counter() - began))
        for index, (seed, trajectory) in enumerate(zip(seeds, trajectories, strict=True)):
            running.images[index] = UnfinishedImage(
                job_id, index, seed, plan, trajectory, plan.evaluations
            )
        for image in list(running.images.values()):
            self._resume(job_id, events, image, None)
        if not running.images:
            self._report_progress(job_id, events)

    # -- stepping ----------------------------------------------------------------------------

    def _select_batch(self) -> list[UnfinishedImage]:
        """The images that take part in this step. The others grow more urgent."""
        waiting = {
            (job_id, image.index): image
            for job_id, running in self._running.items()
            for image in running.images.values()
        }
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
            self._pipeline.await_device()  # a GPU call returns early; time it to its end
        except Exception as exc:  # noqa: BLE001 - the batch's border: a fault must name its request
            self._check_device(exc)
            if len(batch) > 1:
                logger.warning("a forward of %d images failed (%s); one by one", len(batch), exc)
                for image in batch:
                    if image.job_id in self._running:
                        self._run_batch([image], events)
                return
            self._fail(batch[0].job_id, exc, events)
            return
        self._count_forward(batch, time.perf_counter() - began)
        job_ids = dict.fromkeys(image.job_id for image in batch)
        for image, denoised in zip(batch, results, strict=True):
            self._isolate(image.job_id, self._advance, events, image, denoised)
        for job_id in job_ids:
            self._report_progress(job_id, events)

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

    def _count_forward(self, batch: list[UnfinishedImage], seconds: float) -> None:
        self.stats.forwards += 1
        self.stats.shortages = self._velocity.shortages
        self.stats.evaluations += len(batch)
        self.stats.forward_seconds += seconds
        height, width = (side * self._pipeline.scale_factor for side in batch[0].x.shape[-2:])
        self.stats.latest += (Forward(width, height, len(batch), seconds),)
        for job_id in {image.job_id for image in batch}:
            running = self._running[job_id]
            running.forwards += 1
            running.batched += len(batch)
            running.denoise_seconds += seconds

    def _advance(
        self, job_id: str, events: list[EngineEvent], image: UnfinishedImage, denoised: Tensor
    ) -> None:
        """Send an image its result; emit a preview if one is due."""
        if not torch.isfinite(denoised).all():
            raise NonFiniteLatents(
                f"the model gave NaN or infinity at sigma {image.sigma:.4f} for seed {image.seed}"
            )
        image.remaining -= 1
        running = self._running[job_id]
        if running.request.previews and is_preview_due(image.remaining, image.plan.evaluations):
            step = running.step_of(image)
            events.append(Preview(job_id, image.index, step, self._pipeline.preview(denoised)))
        self._resume(job_id, events, image, denoised)

    def _resume(
        self,
        job_id: str,
        events: list[EngineEvent],
        image: UnfinishedImage,
        denoised: Tensor | None,
    ) -> None:
        """Run a sampler up to its next evaluation, or decode its result. None starts it."""
        running = self._running[job_id]
        try:
            image.x, image.sigma = image.trajectory.send(denoised)  # type: ignore[arg-type]
        except StopIteration as result:
            began = time.perf_counter()
            pixels = image.plan.finish(result.value, self._pipeline.codec())
            seconds = time.perf_counter() - began
            running.decode_seconds += seconds
            del running.images[image.index]
            events.append(ImageReady(job_id, image.index, image.seed, pixels, seconds))

    def _report_progress(self, job_id: str, events: list[EngineEvent]) -> None:
        """Emit the progress of a request, and its end after the last image."""
        running = self._running.get(job_id)
        if running is None or running.plan is None:
            return
        events.append(StepDone(job_id, running.finished_steps(), running.steps))
        if not running.images:
            del self._running[job_id]
            mean_batch = running.batched / max(1, running.forwards)
            events.append(
                Finished(job_id, running.denoise_seconds, running.decode_seconds, mean_batch)
            )

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
            self._fail(job_id, exc, events)

    def _fail(self, job_id: str, exc: Exception, events: list[EngineEvent]) -> None:
        """Remove a request and emit why."""
        self.cancel(job_id)
        failed = permanent_failure(job_id, exc)
        if failed is None:
            self._check_device(exc)
            failed = retryable_failure(job_id, exc)
            if isinstance(exc, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
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


def _cut_warnings(prompts: Iterable[tuple[str, EncodedPrompt]]) -> Iterable[RequestWarning]:
    for name, encoded in prompts:
        if encoded.is_cut:
            yield cut_warning(
                name, TokenCount(encoded.qwen_count, encoded.t5_count, encoded.max_tokens)
            )
