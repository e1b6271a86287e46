"""The step engine: many requests, one model evaluation per step.

Every picture is a sampler's generator waiting for an evaluation. A step gathers what a batch of
them waits for, evaluates it in one forward (conditional and unconditional halves together),
guides in float32 and sends each generator its own answer. Knows no queue, HTTP or settings.
"""

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.card import Card
from model.engine.batching import Candidate, choose
from model.engine.image_plan import ImagePlan, LatentCodec, ReadImage, prepare, trajectory
from model.engine.oom_split import ChunkedForward
from model.engine.protocol import (
    DeviceMemory,
    EngineEvent,
    EngineStats,
    Failed,
    Finished,
    Forward,
    ImageReady,
    Preview,
    Started,
    StepDone,
)
from model.errors import (
    DeviceLost,
    InputMissing,
    LoraChanged,
    LoraMissing,
    LoraUnusable,
    NonFiniteLatents,
    PromptError,
)
from model.files.lora_folder import LoraFolder
from model.network.device import device_name, fix_algorithms
from model.network.load import load_components
from model.network.lora import LoraSwitch
from model.network.preview import is_due, to_rgb
from model.network.text_encoder import EncodedPrompt, TextEncoder
from model.network.transformer import predict_velocity
from model.network.vae import decode, encode
from model.prompting.lint import cut_warning
from model.prompting.tokens import TokenCount
from model.request import MAX_SEED, LoraSet, RequestWarning, ResolvedRequest
from model.sampling.samplers import Trajectory
from model.workload import steps_done, total_steps

logger = logging.getLogger(__name__)

_FINAL_FAULTS = {
    PromptError: "bad_prompt",
    NonFiniteLatents: "non_finite",
    InputMissing: "input_missing",
    LoraMissing: "lora_missing",
    LoraChanged: "lora_changed",
    LoraUnusable: "lora_unusable",
}

_MERGE_FORWARDS = 2
"""What merging LoRAs into the transformer counts for in choosing, in full forwards."""

_MEMORY_SECONDS = 1.0
"""How often the device is asked how full it is."""


def no_images(name: str) -> NDArray[numpy.uint8]:
    """Stand in for a store where there is none: InputMissing, whatever the name."""
    raise InputMissing(f"{name} cannot be read: this engine has no image store")


def _no_encoder(pixels: Tensor) -> Tensor:
    raise InputMissing("this engine cannot encode pictures")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The resident model as functions; the engine needs no more of it.

    `velocity(latents, sigmas, contexts)` takes float32 (B, C, 1, h, w), float32 (B,) in [0, 1]
    and (B, rows, dim), and gives float32 of the latents' shape. `decode(latents)` gives uint8
    (B, height, width, 3), `preview(latents)` of a single picture uint8 (h, w, 3).
    `encode_image` takes float32 (B, 3, 1, height, width) in [-1, 1] and gives latents,
    `read_image(name)` gives a stored picture, uint8 (height, width, 3).
    `check_device()` raises if the device does not compute any more, `await_device()` returns when
    it has done all it was given, `memory()` says how full it is. `loras` changes the weights that
    `encode` and `velocity` use.
    """

    encode: Callable[[str], EncodedPrompt]
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], NDArray[numpy.uint8]]
    preview: Callable[[Tensor], NDArray[numpy.uint8]]
    encode_image: Callable[[Tensor], Tensor] = _no_encoder
    read_image: ReadImage = no_images
    loras: LoraSwitch = field(default_factory=lambda: LoraSwitch(None, LoraFolder(None)))
    latent_channels: int = 16
    scale_factor: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    description: dict[str, Any] = field(default_factory=dict)
    check_device: Callable[[], None] = lambda: None
    await_device: Callable[[], None] = lambda: None
    memory: Callable[[], DeviceMemory | None] = lambda: None

    def codec(self) -> LatentCodec:
        """The part that turns pictures into latents and back."""
        return LatentCodec(
            self.encode_image, self.decode, self.latent_channels, self.scale_factor, self.device
        )


@dataclass(slots=True)
class _ImageState:
    """One picture on its way: its generator and the evaluation that it waits for."""

    index: int
    seed: int
    canvas: ImagePlan
    trajectory: Trajectory
    remaining: int
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    sigma: float = 0.0
    waited: int = 0


@dataclass(slots=True)
class _RunningRequest:
    """One admitted request; `images` holds its unfinished pictures once the prompts are encoded.

    `loras` are those that change the transformer.
    """

    request: ResolvedRequest
    owner: str = ""
    weight: float = 1.0
    loras: LoraSet = ()
    conditional: Tensor | None = None
    unconditional: Tensor | None = None
    canvas: ImagePlan | None = None
    is_begun: bool = False
    images: dict[int, _ImageState] = field(default_factory=dict)
    denoise_seconds: float = 0.0
    decode_seconds: float = 0.0
    forwards: int = 0
    batched: int = 0

    @property
    def rows(self) -> int:
        """Rows of a forward that one of its pictures takes."""
        return 2 if self.unconditional is not None else 1

    def step_of(self, image: _ImageState) -> int:
        """The sampling step that a picture has come to; a step may take two evaluations."""
        done = steps_done(image.canvas.parts, image.canvas.evaluations - image.remaining)
        return min(done, total_steps(self.request))


class Engine:
    """Carries out `GenerationEngine` on a resident model. Owned by a single thread."""

    def __init__(self, pipeline: Pipeline, *, token_budget: int) -> None:
        self.stats = EngineStats()
        self._pipeline = pipeline
        self._velocity = ChunkedForward(pipeline.velocity)
        self._token_budget = token_budget
        self._running: dict[str, _RunningRequest] = {}
        self._memory_asked_at = -math.inf

    def description(self) -> dict[str, Any]:
        """What runs here: checkpoint, device, precision."""
        return dict(self._pipeline.description)

    def admit(
        self, job_id: str, request: ResolvedRequest, *, owner: str = "", weight: float = 1.0
    ) -> None:
        """Take a request in; its work starts with the next step. ValueError on a known id."""
        if job_id in self._running:
            raise ValueError(f"job {job_id} is in the engine already")
        self._running[job_id] = _RunningRequest(request, owner, weight)

    def cancel(self, job_id: str) -> None:
        """Forget a request at once; unknown ids are ignored."""
        running = self._running.pop(job_id, None)
        if running:
            for image in running.images.values():
                image.trajectory.close()

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Begin what was admitted, then evaluate the model once for a batch of pictures."""
        events: list[EngineEvent] = []
        self.stats.latest = ()
        for job_id in [j for j, running in self._running.items() if not running.is_begun]:
            self._guarded(job_id, self._begin, events)
        batch = self._choose()
        if batch:
            self._evaluate(batch, events)
        if time.monotonic() - self._memory_asked_at > _MEMORY_SECONDS:
            self._memory_asked_at = time.monotonic()
            self.stats.memory = self._pipeline.memory()
        return events

    # -- beginning ---------------------------------------------------------------------------

    def _begin(self, job_id: str, events: list[EngineEvent]) -> None:
        """Encode the prompts, draw the noise and run the samplers up to their first question."""
        running = self._running[job_id]
        request, started = running.request, time.perf_counter()
        in_text, running.loras = self._pipeline.loras.split(request.loras)
        self._pipeline.loras.use_in_text(in_text)
        prompts = [("prompt", self._pipeline.encode(request.prompt))]
        running.conditional = prompts[0][1].context
        if request.cfg_scale != 1:
            prompts.append(("negative_prompt", self._pipeline.encode(request.negative_prompt)))
            running.unconditional = prompts[1][1].context
        codec = self._pipeline.codec()
        canvas = running.canvas = prepare(request, self._pipeline.read_image, codec)
        warnings = tuple(_cut_warnings(prompts))
        running.is_begun = True
        events.append(Started(job_id, warnings, time.perf_counter() - started))
        for index in range(request.num_images):
            seed = (request.seed + index) % (MAX_SEED + 1)
            way = trajectory(request, canvas, codec, seed=seed)
            running.images[index] = _ImageState(index, seed, canvas, way, canvas.evaluations)
        for image in list(running.images.values()):
            self._resume(job_id, image, None, events)
        if not running.images:
            self._report(job_id, events)

    # -- stepping ----------------------------------------------------------------------------

    def _choose(self) -> list[tuple[str, _ImageState]]:
        """Which pictures take part in this step; the others sit it out, which makes them urgent."""
        waiting = {
            (job_id, image.index): (job_id, image)
            for job_id, running in self._running.items()
            for image in running.images.values()
        }
        chosen = choose(
            [
                Candidate(
                    key=key,
                    shape=(image.x.shape[-2], image.x.shape[-1]),
                    rows=self._running[job_id].rows,
                    remaining=image.remaining,
                    waited=image.waited,
                    group=self._group(job_id, image),
                    setup=self._setup(job_id),
                    owner=self._running[job_id].owner,
                    weight=self._running[job_id].weight,
                )
                for key, (job_id, image) in waiting.items()
            ],
            token_budget=max(1, int(min(self._token_budget, self._velocity.room or math.inf))),
        )
        batch = [waiting.pop(candidate.key) for candidate in chosen]
        for _, image in waiting.values():
            image.waited += 1
        return batch

    def _group(self, job_id: str, image: _ImageState) -> Hashable:
        """Who may share a forward: with equal groups only; a deterministic picture is alone.

        A forward has one set of weights. The size of a batch chooses kernels, and these round
        differently in the last bits.
        """
        running = self._running[job_id]
        alone = (job_id, image.index) if running.request.deterministic else None
        return running.loras, alone

    def _setup(self, job_id: str) -> int:
        """What the weights that a picture needs cost, in tokens; kept sets cost nothing."""
        is_ready = self._pipeline.loras.is_merged(self._running[job_id].loras)
        return 0 if is_ready else _MERGE_FORWARDS * self._token_budget

    def _evaluate(self, batch: list[tuple[str, _ImageState]], events: list[EngineEvent]) -> None:
        """Answer the batch's questions; if the forward breaks, each picture faces it alone."""
        started = time.perf_counter()
        try:
            answers = self._denoise(batch)
            self._pipeline.await_device()  # a GPU has only begun; without it no time is true
        except Exception as exc:  # noqa: BLE001 - the batch's border: a fault must name its request
            self._require_device(exc)
            if len(batch) > 1:
                logger.warning("a forward of %d pictures failed (%s); one by one", len(batch), exc)
                for entry in batch:
                    if entry[0] in self._running:
                        self._evaluate([entry], events)
                return
            self._fail(batch[0][0], exc, events)
            return
        seconds = time.perf_counter() - started
        self.stats.forwards += 1
        self.stats.shortages = self._velocity.shortages
        self.stats.evaluations += len(batch)
        self.stats.forward_seconds += seconds
        height, width = (side * self._pipeline.scale_factor for side in batch[0][1].x.shape[-2:])
        self.stats.latest += (Forward(width, height, len(batch), seconds),)
        for job_id in dict(batch):
            running = self._running[job_id]
            running.forwards += 1
            running.batched += len(batch)
            running.denoise_seconds += seconds
        for (job_id, image), denoised in zip(batch, answers, strict=True):
            self._guarded(job_id, self._advance, events, image, denoised)
        for job_id in dict(batch):
            self._report(job_id, events)

    def _denoise(self, batch: list[tuple[str, _ImageState]]) -> list[Tensor]:
        """One forward for all rows, then guidance: D = D_u + scale * (D_c - D_u), in float32."""
        latents, sigmas, contexts = [], [], []
        self._pipeline.loras.use_in_transformer(self._running[batch[0][0]].loras)
        for job_id, image in batch:
            running = self._running[job_id]
            for context in (running.conditional, running.unconditional):
                if context is not None:
                    latents.append(image.x)
                    sigmas.append(image.sigma)
                    contexts.append(context)
        x = torch.cat(latents)
        sigma = torch.tensor(sigmas, dtype=torch.float32, device=x.device)
        context = torch.stack(contexts)
        # One row at a time, a deterministic picture is never split for want of memory.
        is_single = self._running[batch[0][0]].request.deterministic
        rows = 1 if is_single else len(x)
        parts = [slice(start, start + rows) for start in range(0, len(x), rows)]
        velocity = torch.cat([self._velocity(x[p], sigma[p], context[p]) for p in parts])
        denoised = x - sigma.view(-1, 1, 1, 1, 1) * velocity
        self.stats.rows += len(latents)
        answers, row = [], 0
        for job_id, _ in batch:
            running = self._running[job_id]
            answer = denoised[row : row + 1]
            if running.unconditional is not None:
                unguided = denoised[row + 1 : row + 2]
                answer = unguided + running.request.cfg_scale * (answer - unguided)
            answers.append(answer)
            row += running.rows
        return answers

    def _advance(
        self, job_id: str, events: list[EngineEvent], image: _ImageState, denoised: Tensor
    ) -> None:
        """Send a generator its answer; decode when it returns the picture's latents."""
        if not torch.isfinite(denoised).all():
            raise NonFiniteLatents(
                f"the model gave NaN or infinity at sigma {image.sigma:.4f} for seed {image.seed}"
            )
        image.remaining -= 1
        running = self._running[job_id]
        if running.request.previews and is_due(image.remaining, image.canvas.evaluations):
            step = running.step_of(image)
            events.append(Preview(job_id, image.index, step, self._pipeline.preview(denoised)))
        self._resume(job_id, image, denoised, events)

    def _resume(
        self, job_id: str, image: _ImageState, denoised: Tensor | None, events: list[EngineEvent]
    ) -> None:
        """Let a generator go on to its next question, or finish its picture; None starts it."""
        running = self._running[job_id]
        try:
            image.x, image.sigma = image.trajectory.send(denoised)  # type: ignore[arg-type]
        except StopIteration as result:
            started = time.perf_counter()
            pixels = image.canvas.finish(result.value, self._pipeline.codec())
            seconds = time.perf_counter() - started
            running.decode_seconds += seconds
            del running.images[image.index]
            events.append(ImageReady(job_id, image.index, image.seed, pixels, seconds))

    def _report(self, job_id: str, events: list[EngineEvent]) -> None:
        """Tell the progress of a job of which a picture moved, and its end."""
        running = self._running.get(job_id)
        if running is None or running.canvas is None:
            return
        steps = total_steps(running.request)
        done = min((running.step_of(image) for image in running.images.values()), default=steps)
        events.append(StepDone(job_id, done, steps))
        if not running.images:
            del self._running[job_id]
            mean_batch = running.batched / max(1, running.forwards)
            events.append(
                Finished(job_id, running.denoise_seconds, running.decode_seconds, mean_batch)
            )

    # -- failing -----------------------------------------------------------------------------

    def _guarded(
        self, job_id: str, action: Callable[..., None], events: list[EngineEvent], *values: Any
    ) -> None:
        """Run a part of one request's work; what breaks in it fails that request alone."""
        if job_id not in self._running:
            return
        try:
            action(job_id, events, *values)
        except Exception as exc:  # noqa: BLE001 - the request's border: neighbours go on
            self._fail(job_id, exc, events)

    def _fail(self, job_id: str, exc: Exception, events: list[EngineEvent]) -> None:
        """Let go of a request. The same input would meet a known fault again; others may pass."""
        self.cancel(job_id)
        for kind, code in _FINAL_FAULTS.items():
            if isinstance(exc, kind):
                events.append(Failed(job_id, code, str(exc), is_retryable=False))
                return
        self._require_device(exc)
        if isinstance(exc, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            detail = "the device has no memory for a single picture of this request"
            events.append(Failed(job_id, "out_of_memory", detail, is_retryable=True))
            return
        logger.error("job=%s broke in the engine", job_id, exc_info=exc)
        detail = f"the engine broke: {type(exc).__name__}"
        events.append(Failed(job_id, "engine_error", detail, is_retryable=True))

    def _require_device(self, exc: Exception) -> None:
        """Give up where a fault has left the device unusable: only a new process brings it back.

        Raises:
            DeviceLost: the device does not compute any more.
        """
        try:
            self._pipeline.check_device()
        except RuntimeError as broken:
            raise DeviceLost(f"after {type(exc).__name__}: {broken}") from exc


def _cut_warnings(prompts: Iterable[tuple[str, EncodedPrompt]]) -> Iterable[RequestWarning]:
    for name, encoded in prompts:
        if encoded.is_cut:
            yield cut_warning(
                name, TokenCount(encoded.qwen_count, encoded.t5_count, encoded.max_tokens)
            )


def _compute(device: torch.device) -> None:
    """Raise if the device does not add up; after some CUDA errors every call raises."""
    if torch.ones(2, device=device).sum().item() != 2:
        raise RuntimeError(f"{device} cannot add 1 and 1")


def _await(device: torch.device) -> None:
    """Return when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> DeviceMemory | None:
    """How full the device is; None where it is no GPU."""
    if device.type != "cuda":
        return None
    free, size = torch.cuda.mem_get_info(device)
    return DeviceMemory(
        device=device_name(device),
        allocated=torch.cuda.memory_allocated(device),
        reserved=torch.cuda.memory_reserved(device),
        free=free,
        size=size,
    )


def load_engine(
    card: Card,
    checkpoint_dir: Path | None,
    *,
    device: str,
    precision: str,
    threads: int,
    token_budget: int,
    read_image: ReadImage = no_images,
    lora_dir: Path | None = None,
    lora_cache_sets: int = 2,
) -> Engine:
    """Load the card's checkpoint and make it resident.

    `device` and `precision` may be "auto": CUDA in bfloat16 where there is one, else the CPU in
    float32. `threads` is the number of CPU threads, 0 for PyTorch's choice. `read_image` gives
    the stored pictures that requests start from. Of the LoRAs in `lora_dir` the latest
    `lora_cache_sets` merged sets are kept.

    Raises:
        CheckpointError: a file is missing, incomplete or of another layout.
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    if torch.device(device).type == "cuda":
        fix_algorithms()
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    parts = load_components(
        card, checkpoint_dir, device=torch.device(device), dtype=dtype, has_vae_encoder=True
    )
    text = TextEncoder(parts, card.text)
    loras = LoraSwitch(parts, LoraFolder(lora_dir), cached_sets=lora_cache_sets)
    pipeline = Pipeline(
        encode=lambda prompt: text.encode(prompt, variant=loras.in_text),
        velocity=lambda x, sigma, context: predict_velocity(
            parts.transformer, x, sigma, context, dtype=dtype
        ),
        decode=lambda latents: decode(
            parts.vae, latents, mean=card.vae.latents_mean, std=card.vae.latents_std
        ),
        preview=lambda latents: to_rgb(
            latents, factors=card.preview.factors, bias=card.preview.bias
        ),
        encode_image=lambda pixels: encode(
            parts.vae, pixels, mean=card.vae.latents_mean, std=card.vae.latents_std
        ),
        read_image=read_image,
        loras=loras,
        latent_channels=card.transformer.latent_channels,
        scale_factor=card.vae.scale_factor,
        device=torch.device(device),
        description={
            "card": card.name,
            "checkpoint": parts.sha256,
            "text_encoder": parts.text_encoder_sha256,
            "vae": parts.vae_sha256,
            "device": device,
            "device_name": device_name(torch.device(device)),
            "precision": precision,
            "threads": torch.get_num_threads() if torch.device(device).type == "cpu" else None,
            "torch": torch.__version__,
        },
        check_device=lambda: _compute(torch.device(device)),
        await_device=lambda: _await(torch.device(device)),
        memory=lambda: _memory(torch.device(device)),
    )
    return Engine(pipeline, token_budget=token_budget)
