"""Loads a checkpoint into an engine: device, precision, threads and the model's functions."""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.card import Card
from model.engine.batching import PATCH
from model.engine.beside.side_work import SideThread
from model.engine.compiled.paths import CompiledPaths, Paths, Takes
from model.engine.compiled.plan import Plan
from model.engine.engine import Engine
from model.engine.images.image_plan import ReadImage
from model.engine.oom_split import decode_within_memory, first_that_fits
from model.engine.pipeline import Pipeline, no_image_store
from model.engine.protocol import DeviceMemory
from model.errors import DeviceMissing
from model.files.cpu_threads import (
    ThreadConditions,
    conditions_here,
    remember_threads,
    remembered_threads,
)
from model.files.lora.folder import LoraFolder
from model.files.lora.plan import plan_changes
from model.network.device import (
    device_name,
    empty_cache,
    fewest_fast,
    find_device,
    memory_limit,
    time_threads,
    use_deterministic_kernels,
)
from model.network.load import Components, load_components
from model.network.lora_switch import LoraSwitch
from model.network.preview import latents_to_rgb
from model.network.text.encoder import TextEncoder
from model.network.transformer.float8 import float8_bytes, float8_fault
from model.network.transformer.forward import CACHE_BYTES, Row, Transformer, forward_bytes
from model.network.vae.pixels import decode_latents, encode_pixels
from model.network.vae.tiles import decoding_bytes
from model.sizes import parse_resolution

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_MEASURED_OPERATIONS = 2e10
"""Operations of a forward up to which the number of threads is measured: about 0.1 s a core."""


@dataclass(frozen=True, slots=True)
class Compiling:
    """Whether pictures may be computed by compiled code: on a CPU with "auto" only if it pays.

    `folder` keeps the code. If `is_awaited`, loading ends when it is known whether it can be used.
    `backend` is PyTorch's name of the compiler. With `templates` a GPU's matrix products may be
    Triton's.
    """

    mode: Literal["auto", "always", "off"] = "off"
    folder: Path = Path()
    is_awaited: bool = False
    backend: str = "inductor"
    templates: bool = False


def load_engine(
    card: Card,
    checkpoint_dir: Path | None,
    *,
    device: str,
    precision: str,
    threads: int,
    workers: int = 1,
    threads_file: Path | None = None,
    token_budget: int,
    device_memory_gb: float = 0.0,
    read_image: ReadImage = no_image_store,
    lora_dir: Path | None = None,
    lora_cache_sets: int = 2,
    lora_skip_misfits: bool = False,
    compiling: Compiling = Compiling(),
    takes_float8: Takes | None = None,
) -> Engine:
    """Load the card's checkpoint and keep it resident.

    `device` and `precision` may be "auto": CUDA in bfloat16 if there is a GPU, else the CPU in
    float32. `threads` is the number of CPU threads; 0 means the one that `threads_file` remembers
    for so many `workers`, measured now if it has none, or without a file PyTorch's choice.
    `read_image` returns the stored images that requests start from. The `lora_cache_sets` most
    recently used sets of merged LoRAs from `lora_dir` stay in memory. `lora_skip_misfits` leaves
    out tensors of LoRAs that do not fit the checkpoint. `device_memory_gb` limits the GPU's memory,
    0 does not; prompts are encoded on the CPU if it is too little. `compiling` is done beside.
    The large products of what `takes_float8` are float8.

    Raises:
        CheckpointError: a file is missing, incomplete or of another layout.
        DeviceMissing: there is no such device, or it cannot multiply float8.
    """
    if threads:
        torch.set_num_threads(threads)
    target, precision = _resolve_auto(device, precision)
    dtype = _DTYPES[precision]
    if takes_float8:
        _require_float8(target, precision)
    limits = token_budget, memory_limit(target, device_memory_gb)
    parts = load_components(
        card, checkpoint_dir, device=target, dtype=dtype, has_vae_encoder=True, memory=limits[1],
        float8=takes_float8 is not None,
    )  # fmt: skip
    files = LoraFolder(lora_dir, partial(plan_changes, table=None, skips_misfits=lora_skip_misfits))
    loras = LoraSwitch(parts, files, cached_sets=lora_cache_sets, skips_misfits=lora_skip_misfits)
    if target.type == "cpu" and threads_file is not None and not threads:
        conditions = conditions_here(card.name, precision=precision, workers=workers)
        torch.set_num_threads(_fastest_threads(card, parts, dtype, conditions, threads_file))
    description = _describe(card, parts, target, precision)
    pipeline = _pipeline(
        card, parts, loras, read_image, target, dtype, description, compiling, limits,
        takes_float8,
    )  # fmt: skip
    beside = {name: SideThread(name, target) for name in ("reading", "finishing", "merging")}
    engine = Engine(pipeline, token_budget=token_budget, **beside)
    pipeline.paths.start(lambda: engine.is_busy)
    if compiling.is_awaited:
        pipeline.paths.wait()
    return engine


def _resolve_auto(device: str, precision: str) -> tuple[torch.device, str]:
    """The device, prepared for its first kernel, and the precision on it."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    target = find_device(device)
    if precision == "auto":
        precision = "float32" if target.type == "cpu" else "bfloat16"
    if target.type == "cuda":
        use_deterministic_kernels()
    return target, precision


def _require_float8(target: torch.device, precision: str) -> None:
    """Raise DeviceMissing if the device cannot multiply float8."""
    if fault := float8_fault(target, _DTYPES[precision]):
        raise DeviceMissing(
            f"KIRAZURI_EXPERIMENTAL=float8, but {device_name(target)} cannot multiply float8 with "
            f"results in {precision}: {fault}"
        )


def _decoding_room(
    card: Card, parts: Components, dtype: torch.dtype, limits: tuple[int, int | None]
) -> float:
    """Bytes for decoding an image beside the weights, a forward and what is kept for later."""
    token_budget, memory = limits
    if memory is None:
        return math.inf
    modules = (parts.transformer, parts.vae, parts.text_encoder, parts.conditioner)
    weights = [weight for module in modules for weight in module.parameters()]
    place = weights[0].device
    loaded = sum(weight.nbytes for weight in weights if weight.device == place)
    loaded += float8_bytes(parts.transformer)
    side = PATCH * card.vae.scale_factor
    largest = max(2 * (one.width // side) * (one.height // side) for one in card.resolutions)
    forward = forward_bytes(parts.transformer, max(token_budget, largest), dtype)
    return memory - loaded - forward - CACHE_BYTES


def _fastest_threads(
    card: Card, parts: Components, dtype: torch.dtype, conditions: ThreadConditions, file: Path
) -> int:
    """The remembered number of threads, or the one with which a guided forward is fastest now.

    A forward that would take longer than the measurement may is known to gain from every core.
    """
    if (known := remembered_threads(file, conditions)) is not None:
        return known
    smallest = min(card.resolutions, key=lambda preset: preset.width * preset.height)
    height, width = (side // card.vae.scale_factor for side in (smallest.height, smallest.width))
    size = sum(weight.numel() for weight in parts.transformer.parameters())
    operations = 2 * 2 * size * (height // PATCH) * (width // PATCH)
    if conditions.most == 1 or operations > _MEASURED_OPERATIONS:
        return conditions.most
    network = Transformer(parts.transformer, dtype=dtype)
    prompt = TextEncoder(parts, card.text).encode(card.prompting.example)
    text = network.read_text(prompt.context, prompt.tokens)
    row = Row(torch.zeros(1, card.transformer.latent_channels, 1, height, width), 0.5, text)
    times = time_threads(lambda: network.velocity([row, row]), conditions.most)
    shown = ", ".join(f"{count}: {1000 * seconds:.1f} ms" for count, seconds in times.items())
    logger.info("event=threads_measured a forward takes with threads %s", shown)
    return remember_threads(file, conditions, fewest_fast(times))


def _describe(
    card: Card, parts: Components, target: torch.device, precision: str
) -> dict[str, Any]:
    return {
        "card": card.name,
        "checkpoint": parts.sha256,
        "text_encoder": parts.text_encoder_sha256,
        "vae": parts.vae_sha256,
        "device": str(target),
        "device_name": device_name(target),
        "precision": precision,
        "threads": torch.get_num_threads() if target.type == "cpu" else None,
        "torch": torch.__version__,
    }


def _pipeline(
    card: Card,
    parts: Components,
    loras: LoraSwitch,
    read_image: ReadImage,
    device: torch.device,
    dtype: torch.dtype,
    description: dict[str, Any],
    compiling: Compiling,
    limits: tuple[int, int | None],
    takes_float8: Takes | None,
) -> Pipeline:
    """Bind the loaded modules and the card's constants into the engine's functions.

    `limits` are the tokens of a forward and the bytes of the device.
    """
    text = TextEncoder(parts, card.text)
    transformer = Transformer(parts.transformer, dtype=dtype, variant=lambda: loras.in_transformer)
    mean, std = card.vae.latents_mean, card.vae.latents_std

    room = _decoding_room(card, parts, dtype, limits)

    def fits(latents: Tensor, tile: int | None) -> bool:
        height, width = latents.shape[-2:]
        return decoding_bytes(parts.vae.decoder, height, width, tile) <= room

    def decode(latents: Tensor, tile: int | None) -> NDArray[numpy.uint8]:
        return decode_latents(parts.vae, latents, mean=mean, std=std, tile=tile)

    return Pipeline(
        encode=lambda prompt: text.encode(prompt, variant=loras.in_text),
        read_text=lambda prompt, weights: transformer.read_text(
            prompt.context, prompt.tokens, weights
        ),
        velocity=transformer.velocity,
        decode=partial(
            decode_within_memory, decode, fits=fits, release_memory=partial(empty_cache, device)
        ),
        preview=lambda latents: latents_to_rgb(
            latents, factors=card.preview.factors, bias=card.preview.bias
        ),
        encode_image=lambda pixels: first_that_fits(
            [partial(encode_pixels, parts.vae, pixels, mean=mean, std=std)] * 2,
            release_memory=partial(empty_cache, device),
        ),
        read_image=read_image,
        loras=loras,
        paths=_paths(card, parts, transformer, compiling, device, dtype, takes_float8),
        latent_channels=card.transformer.latent_channels,
        scale_factor=card.vae.scale_factor,
        device=device,
        description=description,
        check_device=lambda: _check_addition(device),
        release_memory=lambda: _release(transformer, device),
        memory=lambda: _memory(device),
    )


def _paths(
    card: Card,
    parts: Components,
    transformer: Transformer,
    compiling: Compiling,
    device: torch.device,
    dtype: torch.dtype,
    takes_float8: Takes | None,
) -> Paths:
    """The eager paths, and with `compiling` the compiled ones."""
    if compiling.mode == "off":
        return Paths(transformer, takes_float8)
    width, height = parse_resolution(card.defaults.resolution, card)
    plan = Plan(
        config=vars(parts.transformer.config),
        context_rows=card.text.context_rows,
        size=(height // card.vae.scale_factor, width // card.vae.scale_factor),
        device=str(device),
        precision=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        must_pay=device.type == "cpu" and compiling.mode == "auto",
        is_patient=device.type == "cpu" and compiling.mode == "auto" and not compiling.is_awaited,
        root=str(compiling.folder),
        backend=compiling.backend,
        float8=takes_float8 is not None,
        templates=compiling.templates and device.type == "cuda",
    )
    spare = Transformer(parts.transformer, dtype=dtype)
    return CompiledPaths(transformer, spare, plan, takes_float8)


def _check_addition(device: torch.device) -> None:
    """Raise RuntimeError if the device cannot add. After some CUDA errors every call raises."""
    if torch.ones(2, device=device).sum().item() != 2:
        raise RuntimeError(f"{device} cannot add 1 and 1")


def _release(transformer: Transformer, device: torch.device) -> None:
    transformer.forget()
    empty_cache(device)


def _memory(device: torch.device) -> DeviceMemory | None:
    """How full the device is; None if it is not a GPU."""
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
