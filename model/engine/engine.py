"""The step engine: runs many requests at once, one model evaluation per step.

Every image is a sampler's generator that waits for an evaluation. A step selects a batch of
images, evaluates the model once for all of them and sends each generator its own result. All else
that takes time is computed beside the steps: prompts, input images, merged LoRAs, previews, pixels.
"""

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.engine.beside.merging import MergesBeside
from model.engine.beside.side_work import AtOnce, Beside, SideTask, SideTasks, timed
from model.engine.beside.starting import Prepared, prepare, read_texts, use_in_steps
from model.engine.failures import permanent_failure, retryable_failure, without_frames
from model.engine.guidance import denoise
from model.engine.launched import Confirmed, LaunchedForwards
from model.engine.oom_split import ChunkedForward
from model.engine.pipeline import Pipeline
from model.engine.protocol import (
    EAGER,
    EngineEvent,
    EngineStats,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.engine.running_request import RunningRequest, UnfinishedImage
from model.engine.turns import has_work, next_batch, preparable, request_of
from model.errors import DeviceLost, NonFiniteLatents
from model.network.device import use_on_this_stream
from model.network.preview import is_preview_due
from model.network.transformer.forward import TextKeys
from model.resolved_request import ResolvedRequest
from model.sampling.samplers import Evaluation
from model.sampling.trajectory import Sampled, Upscaling, advance

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.05
"""How long a step without an image to sample waits for the work beside it."""

_MEMORY_SECONDS = 1.0
"""Interval between two readings of the device's memory."""


class Engine:
    """Implements `GenerationEngine` on a resident model. Not thread-safe.

    `reading` and `finishing` run the work beside the steps, before and after an image is sampled;
    `merging` merges LoRAs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        token_budget: int,
        reading: Beside | None = None,
        finishing: Beside | None = None,
        merging: Beside | None = None,
    ) -> None:
        self.stats = EngineStats(compiled=pipeline.paths.state)
        self._pipeline = pipeline
        self._velocity = ChunkedForward(pipeline.velocity, pipeline.release_memory)
        self._token_budget = token_budget
        self._running: dict[str, RunningRequest] = {}
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="lora-hashes")
        self._hashes: dict[str, Future[None]] = {}
        self._reading = reading or AtOnce()
        self._finishing = finishing or AtOnce()
        self._merges = MergesBeside(pipeline.loras, merging or AtOnce())
        self._tasks = SideTasks()
        self._launched = LaunchedForwards()
        self._memory_read_at = -math.inf
        # A GPU computes while the host prepares its next work: its results are read a step later.
        self._lag = 0 if pipeline.device.type == "cpu" else 1

    @property
    def is_busy(self) -> bool:
        """Whether there are requests. Any thread may ask."""
        return bool(self._running)

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
        for job_id in preparable(self._running, self._hashes):
            self._isolate(job_id, self._prepare, events)
        self._use_results(events)
        # The first look may begin to merge LoRAs, and these may be merged by the second one.
        batch = self._next_batch(events) or self._next_batch(events)
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
        futures = [*self._tasks.futures(), *self._merges.futures(), *self._hashes.values()]
        if futures and not has_work(self._running, self._pipeline.loras):
            wait(futures, timeout=_IDLE_SECONDS, return_when=FIRST_COMPLETED)
        for task in self._tasks.take(confirmed=self._launched.confirmed):
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
        self._tasks.add(SideTask(job_id, running, future, use, after))

    # -- starting ----------------------------------------------------------------------------

    def _prepare(self, job_id: str, events: list[EngineEvent]) -> None:
        """Read input images and encode prompts beside the steps."""
        if hashes := self._hashes.pop(job_id, None):
            hashes.result()
        running = self._running[job_id]
        running.is_preparing = True
        work = partial(prepare, running.request, self._pipeline)
        self._submit(self._reading, job_id, work, partial(self._start, job_id))

    def _start(self, job_id: str, events: list[EngineEvent], prepared: Prepared) -> None:
        """Take over what was prepared."""
        use_in_steps(prepared)
        running, plan = self._running[job_id], prepared.plan
        running.plan, running.loras = plan, prepared.loras
        running.prompts, running.texts = prepared.prompts, prepared.texts
        running.path = self._pipeline.paths.choose(running.request)
        events.append(Started(job_id, prepared.warnings, prepared.seconds, running.path))
        for index, one in enumerate(prepared.images):
            running.images[index] = UnfinishedImage(
                job_id, index, one.seed, plan, one.trajectory, plan.evaluations
            )
            self._await(job_id, running.images[index], one.first)
        self._read_texts(job_id)

    def _use_merged(self, events: list[EngineEvent]) -> None:
        """Go on with the requests that wait for the LoRAs that are now merged, or fail them."""
        ended = self._merges.take()
        if ended is None:
            return
        loras, failure = ended
        for job_id, running in list(self._running.items()):
            if running.loras == loras and failure is None:
                self._read_texts(job_id)
            elif running.loras == loras and failure is not None:
                self._fail(job_id, failure, events)

    def _read_texts(self, job_id: str) -> None:
        """Let the transformer read the prompts beside the steps, once their LoRAs are merged."""
        running = self._running[job_id]
        weights = self._pipeline.loras.weights(running.loras)
        if weights is None or running.texts:
            return

        def use(events: list[EngineEvent], texts: tuple[TextKeys, ...]) -> None:
            use_on_this_stream(*(text.values for text in texts))
            running.texts = texts

        work = partial(read_texts, running.prompts, weights, self._pipeline)
        self._submit(self._reading, job_id, work, use)

    # -- stepping ----------------------------------------------------------------------------

    def _next_batch(self, events: list[EngineEvent]) -> list[UnfinishedImage]:
        """The images of this step."""
        self._use_merged(events)
        budget = max(1, int(min(self._token_budget, self._velocity.max_tokens)))
        return next_batch(self._running, self._pipeline.loras, self._merges, token_budget=budget)

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
                if request_of(image, self._running):
                    self._isolate(image.job_id, self._advance, events, image, denoised)
            return
        # Outside the handler: the failed forward's tensors must not take a retry's memory.
        self._check_device(without_frames(failure))
        if len(batch) == 1:
            self._fail_forward(batch[0], failure, events)
            return
        self._pipeline.release_memory()
        logger.warning("a forward of %d images failed (%s); one by one", len(batch), failure)
        for image in batch:
            if request_of(image, self._running):
                self._run_batch([image], events)

    def _denoise(self, batch: list[UnfinishedImage]) -> list[Tensor]:
        """Evaluate the model once. All images of a batch use the same LoRAs and path."""
        first = self._running[batch[0].job_id]
        self._pipeline.paths.use(first.path)
        self._pipeline.loras.use_in_transformer(first.loras)
        inputs = [self._running[image.job_id].denoise_input(image) for image in batch]
        results = denoise(self._velocity, inputs, is_row_by_row=first.request.deterministic)
        self.stats.rows += sum(len(one.texts) for one in inputs)
        return results

    def _confirm(self, events: list[EngineEvent], *, keep: int) -> None:
        """Wait for all forwards but the latest `keep`, and report their progress."""
        for forward in self._launched.read(keep=keep):
            batch = forward.batch
            self._count_forward(forward)
            for image, sigma, is_finite in zip(
                batch, forward.sigmas, forward.are_finite, strict=True
            ):
                image.confirmed += 1
                if not is_finite and request_of(image, self._running):
                    what = f"the model gave NaN or infinity at sigma {sigma:.4f}"
                    failure = NonFiniteLatents(f"{what} for seed {image.seed}")
                    self._fail_forward(image, failure, events)
            current = (image.job_id for image in batch if request_of(image, self._running))
            for job_id in dict.fromkeys(current):
                running = self._running[job_id]
                events.append(StepDone(job_id, running.finished_steps(), running.steps))

    def _count_forward(self, forward: Confirmed) -> None:
        self.stats.shortages = self._velocity.shortages
        self.stats.add(forward.size(self._pipeline.scale_factor))
        for job_id in {image.job_id for image in forward.batch}:
            if running := self._running.get(job_id):
                running.add_forward(len(forward.batch), forward.seconds)

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

    def _resume(self, job_id: str, image: UnfinishedImage, answer: Tensor) -> None:
        self._await(job_id, image, advance(image.trajectory, answer))

    def _await(
        self, job_id: str, image: UnfinishedImage, wanted: Evaluation | Upscaling | Sampled
    ) -> None:
        """Let an image wait for a step, or for work that begins beside the steps."""
        image.is_beside = not isinstance(wanted, tuple)
        if isinstance(wanted, tuple):
            image.x, image.sigma = wanted
        elif isinstance(wanted, Upscaling):
            use: Callable[[list[EngineEvent], Any], None] = partial(
                self._use_upscaled, job_id, image
            )
            self._submit(self._finishing, job_id, wanted.compute, use, wanted.latents)
        else:
            latents = wanted.latents
            work = partial(timed, image.plan.finish, latents, self._pipeline.codec())
            use = partial(self._deliver, job_id, image)
            self._submit(self._finishing, job_id, work, use, latents)

    def _use_upscaled(
        self, job_id: str, image: UnfinishedImage, events: list[EngineEvent], latents: Tensor
    ) -> None:
        """Begin an image's next pass."""
        use_on_this_stream(latents)
        self._resume(job_id, image, latents)

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
        events.append(running.finished(job_id))

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

    def _fail_forward(
        self, image: UnfinishedImage, exc: Exception, events: list[EngineEvent]
    ) -> None:
        """Begin a request anew by another path if there is one, else fail it."""
        running = self._running[image.job_id]
        if running.path == EAGER or isinstance(exc, torch.OutOfMemoryError):
            self._fail(image.job_id, exc, events)
            return
        self._pipeline.paths.distrust(running.path, exc)
        self.cancel(image.job_id)
        self.admit(image.job_id, running.request, owner=running.owner, weight=running.weight)

    def _check_device(self, exc: Exception) -> None:
        """Raise DeviceLost if a fault broke the device: only a new process can use it again."""
        try:
            self._pipeline.check_device()
        except RuntimeError as broken:
            raise DeviceLost(f"after {type(exc).__name__}: {broken}") from exc
