"""Measures the time per image of the engine and of diffusers' pipeline on the same weights.

Run by `kirazuri bench picture`. Both run Euler on the same schedule, in turn, in one process.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors

from model.card import Card, load_card, shipped_folder
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import Finished
from model.files.layouts import locate_parts
from model.prompting.tokens import QWEN_PAD, T5_EOS, load_qwen_tokenizer, load_t5_tokenizer
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_request
from model.sampling.noise import initial_noise

T5_PAD = "<pad>"

Run = Callable[[], None]


def library_pipeline(
    card: Card, checkpoint_dir: Path | None, device: torch.device, dtype: torch.dtype
) -> Any:
    """Load diffusers' Anima pipeline: its transformer in `dtype`, all other parts in float32."""
    # Imported here: it takes seconds, and benchmarks of the engine alone use this module, too.
    from diffusers import AnimaModularPipeline, FlowMatchEulerDiscreteScheduler
    from transformers import PreTrainedTokenizerFast

    from model.bench.library import load_library_module

    folder = locate_parts(card.files, checkpoint_dir or shipped_folder(card))
    qwen = load_qwen_tokenizer(folder.qwen_tokenizer)
    load = partial(load_library_module, card=card, checkpoint_dir=checkpoint_dir, device=device)
    pipeline: Any = AnimaModularPipeline()
    pipeline.update_components(
        transformer=load("transformer", dtype=dtype),
        text_encoder=load("text_encoder"),
        text_conditioner=load("conditioner"),
        vae=load("vae"),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=qwen, pad_token=QWEN_PAD),
        t5_tokenizer=_library_t5(load_t5_tokenizer(folder.t5_tokenizer)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return pipeline


def _library_t5(t5: Tokenizer) -> Any:
    from transformers import PreTrainedTokenizerFast

    t5.post_processor = processors.TemplateProcessing(
        single=f"$A {T5_EOS}", special_tokens=[(T5_EOS, t5.token_to_id(T5_EOS))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=t5, pad_token=T5_PAD, eos_token=T5_EOS)


def run_library(pipeline: Any, request: ResolvedRequest, channels: int, scale: int) -> None:
    """Make one image with diffusers' pipeline."""
    shape = (1, channels, 1, request.height // scale, request.width // scale)
    pipeline(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.steps,
        latents=initial_noise(request.seed, shape, device=pipeline.transformer.device),
        output="images",
    )


def run_engine(engine: Engine, requests: list[ResolvedRequest]) -> None:
    """Run all requests at once."""
    for number, request in enumerate(requests):
        engine.admit(str(number), request)
    finished = 0
    while finished < len(requests):
        finished += sum(isinstance(event, Finished) for event in engine.step())


def time_runs(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Measure wall-clock seconds of every run, in turn, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(seconds: dict[str, list[float]], pictures: dict[str, int]) -> str:
    """A Markdown table: seconds per image (median and range), speed relative to the first row."""
    lines = ["| | seconds per image | range | relative speed |", "|---|---|---|---|"]
    base = None
    for name, taken in seconds.items():
        each = sorted(value / pictures[name] for value in taken)
        median = statistics.median(each)
        base = base or median
        span = f"{each[0]:.3f} - {each[-1]:.3f}"
        lines.append(f"| {name} | {median:.3f} | {span} | {base / median:.2f}x |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(prog="kirazuri bench picture", description=__doc__)
    add_request_options(parser)
    parser.add_argument(
        "--batch", type=int, default=4, help="number of requests at once in the last row"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(run_benchmark(options))


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is generated, and with what."""
    parser.add_argument(
        "--card", default="kirazuri-tiny", help="name of a card, or path of its .toml file"
    )
    parser.add_argument("--checkpoint-dir", type=Path, help="folder with the card's files")
    parser.add_argument("--resolution", help="a preset or WIDTHxHEIGHT (default: the card's)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg-scale", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")


def open_engine(options: argparse.Namespace) -> tuple[Engine, ResolvedRequest]:
    """The loaded engine, and the request that the options describe."""
    card = load_card(options.card)
    request = resolve_request(
        GenerationRequest(
            prompt=card.prompting.example,
            resolution=options.resolution,
            steps=options.steps,
            cfg_scale=options.cfg_scale,
            sampler="euler",
        ),
        card,
        seed=1,
    )
    engine = load_engine(
        card,
        options.checkpoint_dir,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        token_budget=1 << 20,
    )
    return engine, request


def quiet_library() -> None:
    """Show no progress bars of the library if nobody watches."""
    from diffusers.modular_pipelines import modular_pipeline
    from diffusers.utils import logging as diffusers_logging

    changed: Any = modular_pipeline  # the library's annotations do not cover this use
    diffusers_logging.disable_progress_bar()
    if not sys.stderr.isatty():  # its loop has a progress bar of its own
        changed.tqdm = partial(changed.tqdm, disable=True)


def open_library(options: argparse.Namespace, *, is_compiled: bool = False) -> Run:
    """A function that makes the same picture with the library's pipeline."""
    from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance

    quiet_library()
    engine, request = open_engine(options)
    card, about = load_card(options.card), engine.description()
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[about["precision"]]
    device = torch.device(about["device"])
    pipeline = library_pipeline(card, options.checkpoint_dir, device, dtype)
    if is_compiled:
        for block in pipeline.transformer.transformer_blocks:
            block.compile()
    pipeline.update_components(guider=ClassifierFreeGuidance(guidance_scale=options.cfg_scale))
    channels, scale = card.transformer.latent_channels, card.vae.scale_factor
    return partial(run_library, pipeline, request, channels, scale)


def run_benchmark(options: argparse.Namespace) -> str:
    """Measure with the given options and return the table with its conditions."""
    engine, request = open_engine(options)
    library_run, about = open_library(options), engine.description()
    several = [request.model_copy(update={"seed": seed}) for seed in range(options.batch)]
    pictures = {
        "diffusers AnimaModularPipeline": 1,
        "engine, one request": 1,
        f"engine, {options.batch} requests at once": options.batch,
    }
    library, one, batch = pictures
    runs: dict[str, Run] = {
        library: library_run,
        one: lambda: run_engine(engine, [request]),
        batch: lambda: run_engine(engine, several),
    }
    conditions = (
        f"{load_card(options.card).name}, {request.width}x{request.height}, {request.steps} steps "
        f"of euler, CFG {request.cfg_scale:g}, {about['precision']} on {about['device']}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"median of {options.rounds}"
    )
    return f"{conditions}\n\n{table(time_runs(runs, options.rounds), pictures)}"


if __name__ == "__main__":
    main()
