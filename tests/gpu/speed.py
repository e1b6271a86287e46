"""The numbers: ours beside diffusers' class and pipeline, each as it is and compiled."""

import asyncio
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from torch import Tensor

from cli.bench.serving.serve import measure
from model.bench.counts import count_library, transformer_sizes
from model.bench.engine_speed import matrix_peak
from model.bench.picture import library_pipeline, quiet_library, run_library
from model.network.transformer.blocks import Blocks
from model.network.transformer.forward import Transformer
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_request
from tests.gpu.checks import digest, error, same
from tests.gpu.findings import Check, Finding, Number
from tests.gpu.launches import enqueued
from tests.gpu.subject import DTYPES, PROMPT, Case, Subject, pictures
from tests.support import service
from worker.images.encode import decode_image


def machine(subject: Subject) -> Iterator[Finding]:
    """What the device can do at most."""
    side = 256 if subject.is_tiny else 8192
    peak = matrix_peak(side, subject.device, torch.bfloat16)
    yield Number("matrix peak in bfloat16", peak / 1e12, "TFLOP/s", f"{side} x {side}")
    source = torch.empty((1 << 20) if subject.is_tiny else (1 << 30), device=subject.device)
    seconds = subject.seconds(lambda: source.clone())
    yield Number("copying", 2 * source.nbytes / seconds / 1e12, "TB/s")


def forwards(subject: Subject) -> Iterator[Finding]:
    """A forward of a guidance pair at every size."""
    torch.compiler.reset()  # a function may have only eight pieces of code
    dtype = DTYPES[subject.precision]
    library = subject.module(dtype)
    eager = Transformer(subject.module(dtype), dtype=dtype)
    compiled = Transformer(eager.module, dtype=dtype)
    compiled.use(Blocks.compiled(backend=subject.backend, dynamic=False))
    cases = [Case(subject, size, 1) for size in subject.sizes]
    everywhere, usual = range(3), [1]
    runs: list[tuple[str, Sequence[int], Callable[[Case], Callable[[], Tensor]]]] = [
        ("diffusers", everywhere, lambda case: lambda: case.of_library(library)),
        ("ours", everywhere, lambda case: of_network(eager, case)),
        ("ours, compiled", everywhere, lambda case: of_network(compiled, case)),
        ("diffusers, compiled", usual, lambda case: lambda: case.of_library(library)),
    ]
    sizes = transformer_sizes(subject.card, subject.checkpoint)
    shapes = ((1, *case.latents.shape[1:]) for case in cases)
    work = [count_library(subject.card, sizes, shape)["TFLOP"] for shape in shapes]
    base: dict[int, float] = {}
    for name, indices, make in runs:
        use_fastest_kernels(subject, allowed=not name.startswith("ours"))
        if name == "diffusers, compiled":
            compile_library(subject, library)
        for index in indices:
            size, seconds = subject.sizes[index], subject.seconds(make(cases[index]))
            base.setdefault(index, seconds)
            rate = work[index] / seconds
            note = f"{base[index] / seconds:.2f}x diffusers, {rate:.0f} TFLOP/s nominal"
            title = f"forward {size[0]}x{size[1]}, {name}"
            yield Number(title, 1000 * seconds, "ms", note)
            if name.startswith("ours"):
                waiting = enqueued(subject, make(cases[index]))
                yield Number(f"enqueueing a {title}", 1000 * waiting.host, "ms", waiting.note)
        if name == "ours, compiled":
            yield same_as_eager(subject, "compiled blocks", compiled, eager)


def templates(subject: Subject) -> Iterator[Finding]:
    """Compiled blocks of the usual size whose products may compute what follows them."""
    torch.compiler.reset()
    dtype, (width, height) = DTYPES[subject.precision], subject.sizes[1]
    use_fastest_kernels(subject, allowed=False)
    eager = Transformer(subject.module(dtype), dtype=dtype)
    times: list[float] = []
    for name, options in (("without templates", None), ("with templates", subject.templates)):
        network = Transformer(eager.module, dtype=dtype)
        network.use(Blocks.compiled(backend=subject.backend, dynamic=False, options=options))
        forward = of_network(network, Case(subject, subject.sizes[1], 1))
        times.append(subject.seconds(forward))
        note = f"{times[0] / times[-1]:.3f}x as fast as without templates"
        yield Number(f"forward {width}x{height}, compiled {name}", 1000 * times[-1], "ms", note)
    yield same_as_eager(subject, "compiled templates", network, eager)


def same_as_eager(subject: Subject, name: str, network: Transformer, eager: Transformer) -> Check:
    """Whether a forward of the usual size is that of eager blocks."""
    case = Case(subject, subject.sizes[1], 1)
    ratio = error(*(of_network(one, case)() for one in (network, eager)))
    limit = 1e-4 if subject.precision == "float32" else 0.05
    detail = f"difference {ratio:.1e}, at most {limit:g}"
    return Check(f"{name} compute what eager ones do", ratio <= limit, detail)


def whole_pictures(subject: Subject) -> Iterator[Finding]:
    """A step and a picture: ours with er_sde, diffusers' pipeline with Euler."""
    card, engine = subject.card, subject.engine()
    quiet_library()
    dtype = DTYPES[subject.precision]
    pipeline = library_pipeline(card, subject.checkpoint, subject.device, dtype)
    pipeline.update_components(guider=ClassifierFreeGuidance(guidance_scale=4.5))
    channels, scale = card.transformer.latent_channels, card.vae.scale_factor

    def by_engine(wanted: ResolvedRequest) -> None:
        pictures(engine, {"it": wanted})

    def by_library(wanted: ResolvedRequest) -> None:
        run_library(pipeline, wanted, channels, scale)

    runs = [("ours", by_engine), ("diffusers", by_library), ("diffusers, compiled", by_library)]
    for name, make in runs:
        use_fastest_kernels(subject, allowed=name != "ours")
        if name == "diffusers, compiled":
            compile_library(subject, pipeline.transformer)
        for size in subject.sizes if name != "diffusers, compiled" else subject.sizes[1:2]:
            wanted = subject.request(width=size[0], height=size[1], steps=subject.steps)
            short = wanted.model_copy(update={"steps": max(2, subject.steps // 4)})
            part = subject.seconds(partial(make, short), rounds=1, warm_up=1)
            whole = subject.seconds(partial(make, wanted), rounds=1, warm_up=0)
            step = (whole - part) / (wanted.steps - short.steps)
            title = f"{size[0]}x{size[1]}, {name}"
            yield Number(f"step {title}", 1000 * step, "ms")
            note = f"{wanted.steps} steps, guided, from the prompt to pixels on the host"
            yield Number(f"picture {title}", whole, "s", note)


def serving(subject: Subject) -> Iterator[Finding]:
    """The service: from its start to the first picture, its bytes, and its saturation."""
    width, height = subject.sizes[1]
    body: dict[str, Any] = {
        "prompt": PROMPT, "resolution": f"{width}x{height}", "steps": subject.steps, "seed": 3,
        "sampler": "er_sde", "deterministic": True, "image_format": "png",
    }  # fmt: skip
    wanted = resolve_request(GenerationRequest(**body), subject.card, seed=3)
    use_fastest_kernels(subject, allowed=False)
    expected = pictures(subject.engine(), {"it": wanted})["it"]
    subject.forget()
    settings = {
        "KIRAZURI_CARD": subject.card_name,
        "KIRAZURI_DEVICE": str(subject.device),
        "KIRAZURI_TORCH_THREADS": subject.threads,
    }
    if subject.checkpoint is not None:
        settings["KIRAZURI_CHECKPOINT_DIR"] = subject.checkpoint
    began = time.monotonic()
    with service.running(subject.folder, **settings) as client:
        answer = client.post("/generate", json=body, headers={"Prefer": "wait=60"})
        yield Number(
            "from the start of the service to the first picture", time.monotonic() - began, "s"
        )
        job = answer.raise_for_status().json()
        pixels = decode_image(client.get(job["images"][0]["url"]).content)
        detail = f"{digest(pixels)}, the engine here {digest(expected)}"
        name = "the service's deterministic picture has the bytes of another process"
        yield Check(name, same(pixels, expected), detail)
        options = Namespace(
            url=str(client.base_url), classes=[f"{width}x{height}:{subject.steps}"], clients=8,
            jobs=8 if subject.is_tiny else 16, alone=1, loads=[], seed=1,
        )  # fmt: skip
        rows, _ = asyncio.run(measure(options))
    saturated = next(row for row in rows if row["load"] == "saturation")
    yield Check(
        "no job failed at saturation", saturated["failed"] == 0, f"{saturated['jobs']} jobs"
    )
    note = f"{width}x{height}, {subject.steps} steps, guided, PNG files, 8 clients that never pause"
    yield Number("pictures at saturation", saturated["pictures/s of all"], "/s", note)


NUMBERS = (machine, forwards, whole_pictures, serving)
"""The most important ones first."""


def use_fastest_kernels(subject: Subject, *, allowed: bool) -> None:
    """Our engine uses deterministic kernels on a GPU; diffusers need not."""
    if subject.device.type == "cuda":
        torch.use_deterministic_algorithms(not allowed)


def compile_library(subject: Subject, module: Any) -> None:
    """Compile diffusers' blocks, for each size alone."""
    for block in module.transformer_blocks:
        block.compile(backend=subject.backend, dynamic=False)


def of_network(network: Transformer, case: Case) -> Callable[[], Tensor]:
    """A forward whose texts and noise level are known."""
    rows = case.rows(network)

    def forward() -> Tensor:
        with torch.inference_mode():
            return network.velocity(rows)

    return forward
