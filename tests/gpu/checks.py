"""The checks: what is tested on the CPU must hold on the device too."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from model.bench.library import load_library_module
from model.engine.oom_split import TILES, ChunkedForward, decode_within_memory
from model.engine.protocol import COMPILED
from model.network.device import empty_cache
from model.network.transformer.forward import Row, Transformer
from model.network.vae.pixels import decode_latents
from model.resolved_request import ResolvedHires, ResolvedLora
from model.sampling.samplers import SAMPLERS
from tests.gpu.findings import Check, Finding, Number
from tests.gpu.subject import DTYPES, TINY, Case, Subject, pictures

T = TypeVar("T")

COMPILED_LEVELS = 4
"""Mean difference of a picture, of 256 levels; guidance enlarges the last bits."""

FLOAT32_ERROR = 1e-4
"""Of the largest value: 28 blocks of sums in another order."""


def parity(subject: Subject) -> Iterator[Finding]:
    """Our forward beside the library's class, in both precisions."""
    exact_module, rounded_module = (subject.module(dtype) for dtype in DTYPES.values())
    in_float32 = ours = theirs = 0.0
    for size, images in ((subject.sizes[0], 1), (subject.sizes[2], 2)):
        case = Case(subject, size, images)
        exact = case.of_library(exact_module)
        in_float32 = max(in_float32, largest_error(velocity(exact_module, case), exact))
        ours += error(velocity(rounded_module, case), exact)
        theirs += error(case.of_library(rounded_module), exact)
    detail = f"{in_float32:.1e} of the largest value; at most {FLOAT32_ERROR:g}"
    yield Check("parity with diffusers' class in float32", in_float32 <= FLOAT32_ERROR, detail)
    detail = f"error {ours:.2e}, the library's own {theirs:.2e}; at most 1.1 times it"
    yield Check("parity in bfloat16", 0 < ours <= 1.1 * theirs, detail)


def independence(subject: Subject) -> Iterator[Finding]:
    """A row's velocity alone and in a batch."""
    case = Case(subject, subject.sizes[0], 3)
    exact = case.of_library(subject.module(torch.float32))
    for name, dtype in DTYPES.items():
        network = Transformer(subject.module(dtype), dtype=dtype)
        rows = case.rows(network)
        with torch.inference_mode():
            together = network.velocity(rows)
            alone = torch.cat([network.velocity([row]) for row in rows])
        found = error(together, alone)
        limit = FLOAT32_ERROR if dtype == torch.float32 else 2 * error(alone, exact)
        detail = f"difference {found:.1e}, at most {limit:.1e}"
        yield Check(f"independence of the batch in {name}", found <= limit, detail)


def samplers(subject: Subject) -> Iterator[Finding]:
    """Every sampler once, beside the CPU's pictures; then every kind of request."""
    small = {"width": 64, "height": 64, "steps": 4} if subject.is_tiny else {"steps": 8}
    jobs = {
        name: subject.request(**{"width": 128, "height": 128, **small}, sampler=name)
        for name in SAMPLERS
    }
    here = pictures(subject.engine(card=TINY, precision="float32"), jobs)
    there = pictures(subject.engine("cpu", card=TINY, precision="float32"), jobs)
    distances = {name: distance(here[name], there[name]) for name in jobs}
    worst = max(distances, key=lambda name: distances[name])
    flat = [name for name in jobs if here[name].std() < 1]
    detail = f"{len(jobs)} samplers, worst {worst} {distances[worst]:.2f} levels, at most 4"
    holds = distances[worst] <= 4 and not flat
    yield Check("every sampler, beside the CPU's pictures in float32", holds, detail)

    width, height = subject.sizes[0]
    hires = {"scale": 1.5, "width": width * 3 // 2, "height": height * 3 // 2, "steps": 2}
    kinds: dict[str, dict[str, Any]] = {
        "several": {"num_images": 3},
        "without guidance": {"cfg_scale": 1.0},
        "previews": {"previews": True},
        **{
            f"hires {name}": {"hires": ResolvedHires(**hires, strength=0.5, upscaler=name)}
            for name in ("latent", "lanczos")
        },
    }
    made = pictures(
        subject.engine(), {name: subject.request(steps=4, **kind) for name, kind in kinds.items()}
    )
    flat = [name for name, pixels in made.items() if pixels.std() < 1]
    yield Check("several pictures, CFG 1, previews, hires", len(made) == len(kinds) and not flat)


def determinism(subject: Subject) -> Iterator[Finding]:
    """A deterministic request gives equal bytes, alone and beside others."""
    engine, wanted = subject.engine(), subject.request(steps=6, deterministic=True)
    others = {f"{n}": subject.request(steps=5, seed=n, sampler="euler") for n in range(3)}
    first, again = (pictures(engine, {"it": wanted})["it"] for _ in range(2))
    beside = pictures(engine, {**others, "it": wanted, "twin": wanted})
    yield Check("a deterministic request repeats its bytes", same(first, again), digest(first))
    detail = digest(beside["it"])
    holds = same(first, beside["it"]) and same(first, beside["twin"])
    yield Check("its bytes beside other requests", holds, detail)
    fast = {
        seed: subject.request(steps=8, seed=seed, deterministic=True, quality="fast")
        for seed in (7, 8)
    }
    alone = pictures(engine, {"7": fast[7]})["7"]
    both = pictures(engine, {f"{seed}": one for seed, one in fast.items()})
    detail = digest(both["7"])
    yield Check("the bytes of a forecast beside another one", same(alone, both["7"]), detail)
    plain = subject.request(steps=6)
    alone = pictures(engine, {"it": plain})["it"]
    found = distance(alone, pictures(engine, {**others, "it": plain})["it"])
    note = "without `deterministic`: the size of a batch rounds differently"
    yield Number("a plain request alone and in a batch", found, "levels", note)


def compiled(subject: Subject) -> Iterator[Finding]:
    """The engine with compiled code, made in another process, then taken from its folder."""
    plain = subject.request(steps=6)
    repeating = plain.model_copy(update={"deterministic": True})
    eager, exact = (pictures(subject.engine(), {"it": one})["it"] for one in (plain, repeating))
    for what in ("compiling, comparing and loading", "loading compiled code"):
        torch.compiler.set_stance("default")
        torch.compiler.reset()
        began = time.monotonic()
        engine = subject.compiled_engine()
        yield Number(f"an engine with {what}", time.monotonic() - began, "s")
        state = engine.stats.compiled
        yield Check(f"{what}: the code is ready", state.name == "ready", state.detail)
    found, again = (pictures(engine, {"it": one})["it"] for one in (plain, repeating))
    yield Check("a deterministic request stays eager", same(exact, again), digest(again))
    style = style_lora(subject)
    pictures(engine, {"it": plain.model_copy(update={"loras": (style,)}), "beside": plain})
    holds = engine._pipeline.paths.choose(plain) == COMPILED
    yield Check("it serves pictures and LoRAs", holds, state.detail)
    detail = f"{distance(found, eager):.2f} levels"
    yield Check("a picture of compiled code", distance(found, eager) <= COMPILED_LEVELS, detail)
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def lora(subject: Subject) -> Iterator[Finding]:
    """Switching to a LoRA and back restores every bit."""
    plain = subject.request(steps=3, deterministic=True)
    changed = plain.model_copy(update={"loras": (style_lora(subject),)})
    engine = subject.engine()
    before, with_it, after, again = (
        pictures(engine, {"it": wanted})["it"] for wanted in (plain, changed, plain, changed)
    )
    yield Check("a LoRA changes the picture", not same(before, with_it), digest(with_it))
    yield Check("without it every byte is back", same(before, after), digest(after))
    yield Check("with it again too", same(with_it, again), digest(again))


def style_lora(subject: Subject) -> ResolvedLora:
    """A LoRA that changes the first self-attention."""
    config: Any = subject.parts.transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    generator = torch.Generator().manual_seed(5)
    stem = "diffusion_model.blocks.0.self_attn.q_proj"
    path = subject.loras / "style.safetensors"
    down, up = torch.randn(2, 4, width, generator=generator) / width**0.5
    save_file(
        {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": 20 * up.T.contiguous()}, path
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ResolvedLora(name="style", weight=1.0, sha256=sha256)


def memory(subject: Subject) -> Iterator[Finding]:
    """Without memory a forward is halved, and a picture is decoded in tiles."""
    network = Transformer(
        subject.module(DTYPES[subject.precision]), dtype=DTYPES[subject.precision]
    )
    rows = Case(subject, subject.sizes[0], 12).rows(network)

    def forward(rows: Sequence[Row]) -> Tensor:
        with torch.inference_mode():
            return network.velocity(rows)

    whole, needed = with_memory_of(subject, lambda: forward(rows))
    with little_memory(subject, needed, lambda rows: len(rows) < 20, forward) as limited:
        chunked = ChunkedForward(limited, lambda: empty_cache(subject.device))
        halved = chunked(rows)
    found = error(halved, whole)
    limit = FLOAT32_ERROR if subject.precision == "float32" else 0.05
    detail = f"{chunked.shortages} shortages, difference {found:.1e}, at most {limit:g}"
    holds = chunked.shortages > 0 and found <= limit
    yield Check("a forward without memory is halved", holds, detail)

    latents = wide_latents(subject, 40, 24) if subject.is_tiny else wide_latents(subject)
    pixels, needed = with_memory_of(subject, lambda: decode(subject, latents))
    tiles: list[int | None] = []

    def noted(latents: Tensor, tile: int | None) -> NDArray[numpy.uint8]:
        tiles.append(tile)
        return decode(subject, latents, tile)

    with little_memory(subject, needed, lambda _, tile: tile == TILES[-1], noted) as decode_some:
        release = partial(empty_cache, subject.device)
        tiled = decode_within_memory(decode_some, latents, release_memory=release)
    found = distance(tiled, pixels)
    detail = f"in tiles of {tiles[-1]}, difference {found:.3f} levels, at most 0.5"
    yield Check("a picture is decoded in tiles", bool(tiles[-1]) and found <= 0.5, detail)


def decoding(subject: Subject) -> Iterator[Finding]:
    """The widest size beside the library's decoder."""
    width, height = subject.sizes[2]
    latents = wide_latents(subject)
    vae = load_library_module("vae", subject.card, subject.checkpoint, device=subject.device)
    with (
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True),
        torch.inference_mode(),
    ):
        ours = decode(subject, latents)[0]
        mean, std = (
            torch.tensor(values, device=subject.device).view(1, -1, 1, 1, 1)
            for values in (subject.card.vae.latents_mean, subject.card.vae.latents_std)
        )
        pixels = vae.decode(latents * std + mean, return_dict=False)[0][0, :, 0]
    theirs = ((pixels.clamp(-1, 1) + 1) / 2 * 255).round().movedim(0, -1).cpu().numpy()
    largest = float(numpy.abs(ours - theirs).max())
    name = f"decoding {width}x{height} beside diffusers' decoder"
    holds = ours.shape == (height, width, 3) and largest <= 1 and bool(ours.std() > 2)
    yield Check(name, holds, f"largest difference {largest:g} levels, at most 1")
    seconds = subject.seconds(lambda: decode(subject, latents))
    yield Number(f"decode {width}x{height} to pixels on the host", 1000 * seconds, "ms")


CHECKS = (parity, independence, samplers, determinism, lora, compiled, memory, decoding)


# -- comparing -------------------------------------------------------------------------------


def velocity(module: Any, case: Case) -> Tensor:
    """What our forward makes of a module's weights."""
    network = Transformer(module, dtype=module.proj_out.weight.dtype)
    with torch.inference_mode():
        return network.velocity(case.rows(network))


def error(found: Tensor, exact: Tensor) -> float:
    """Relative to the norm."""
    return float((found - exact).norm() / exact.norm())


def largest_error(found: Tensor, exact: Tensor) -> float:
    """Relative to the largest value."""
    return float((found - exact).abs().max() / exact.abs().max())


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean difference in levels of 255."""
    return float(numpy.abs(one.astype(int) - other).mean())


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether every byte is equal."""
    return digest(one) == digest(other)


def digest(pixels: NDArray[Any]) -> str:
    """The first digits of the pixels' SHA-256."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


# -- decoding and memory ---------------------------------------------------------------------


def wide_latents(subject: Subject, width: int = 0, height: int = 0) -> Tensor:
    """Normalised latents of this size, by default of the widest one of the subject."""
    scale, channels = subject.card.vae.scale_factor, len(subject.card.vae.latents_mean)
    wide, high = (side // scale for side in subject.sizes[2])
    shape = (1, channels, 1, height or high, width or wide)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(subject.device)


def decode(subject: Subject, latents: Tensor, tile: int | None = None) -> NDArray[numpy.uint8]:
    """Decode as the engine does."""
    mean, std = subject.card.vae.latents_mean, subject.card.vae.latents_std
    return decode_latents(subject.parts.vae, latents, mean=mean, std=std, tile=tile)


def with_memory_of(subject: Subject, call: Callable[[], T]) -> tuple[T, int]:
    """The result of a call and, on CUDA, the bytes that it needed."""
    if subject.device.type != "cuda":
        return call(), 0
    call()  # what it keeps for the next time does not count
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    subject.synchronize()
    return result, torch.cuda.max_memory_allocated() - before


@contextmanager
def little_memory(
    subject: Subject, needed: int, fits: Callable[..., bool], call: Callable[..., T]
) -> Iterator[Callable[..., T]]:
    """`call` with 0.6 of the bytes that it needs; on a CPU it fails unless `fits` says it may."""
    if subject.device.type == "cuda":
        torch.cuda.empty_cache()
        size = torch.cuda.get_device_properties(subject.device).total_memory
        limit = torch.cuda.memory_reserved() + int(0.6 * needed)
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / size))
        try:
            yield call
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def limited(*arguments: Any) -> T:
        if not fits(*arguments):
            raise torch.OutOfMemoryError("there is little memory")
        return call(*arguments)

    yield limited
