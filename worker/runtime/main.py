"""Entry point of a worker process: reads settings, makes the engine, runs the control loop."""

import argparse
import atexit
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from model.card import Card, load_card
from model.engine.protocol import GenerationEngine
from model.files.cpu_threads import THREADS_FILE
from model.files.presence import why_incomplete
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_request
from worker.images.input_images import HeldImages
from worker.images.output_filter import OutputFilter, open_filter
from worker.images.signing import ImageSigner
from worker.job import checkpoint_of
from worker.redis_io.client import check_database, check_url, connect
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.watchdog import ENDING_SECONDS, end_within
from worker.settings import Settings, redis_dsn
from worker.start_up import long_lived
from worker.store.image_store import ImageStore
from worker.store.open_store import make_data_folder, open_store
from worker.telemetry import logs, tracing
from worker.wrong_settings import WRONG_SETTINGS, naming, read_settings

COMPILED_FOLDER = "compiled"
"""Compiled code, in the data folder. It can be deleted while no worker runs."""


def service_version() -> str:
    """Name and version of this service, as image metadata gives them."""
    try:
        return f"kirazuri-server {version('kirazuri-server')}"
    except PackageNotFoundError:
        return "kirazuri-server"


def _signer(settings: Settings) -> ImageSigner | None:
    """The C2PA signer of the settings; imports its library only if needed."""
    if settings.c2pa_certificate is None and settings.c2pa_key is None:
        return None
    from worker.images.c2pa_signer import open_signer

    return open_signer(settings, service=service_version())


def warm_up_requests(card: Card, warm: Literal["smallest", "presets"]) -> list[ResolvedRequest]:
    """Two steps with guidance at the smallest preset, or at each: all of the model runs once."""
    presets = sorted(card.resolutions, key=lambda preset: preset.width * preset.height)
    return [
        resolve_request(
            GenerationRequest(prompt="1girl", resolution=preset.name, steps=2), card, seed=0
        )
        for preset in (presets if warm == "presets" else presets[:1])
    ]


def run(
    settings: Settings,
    card: Card,
    redis_url: str,
    store: ImageStore,
    signer: ImageSigner | None = None,
    output_filter: OutputFilter | None = None,
) -> None:
    """Run the worker until it is stopped."""
    connection = connect(redis_url)
    inputs = HeldImages()

    def takes_float8(request: ResolvedRequest) -> bool:
        return card.takes_float8(request.quality, request.sampler)

    def make_engine() -> GenerationEngine:
        # OpenMP reads this when torch is loaded. Its threads spin while they wait by default: on
        # two busy cores an image then took 60 seconds instead of half a second.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251 - not one of our settings
        with long_lived():
            from model.engine.loading import Compiling, load_engine

            return load_engine(
                card,
                settings.checkpoint_dir,
                device=settings.device,
                precision=settings.precision,
                threads=settings.torch_threads,
                workers=settings.workers,
                threads_file=settings.data_dir / THREADS_FILE,
                device_memory_gb=settings.device_memory_gb,
                token_budget=settings.token_budget,
                read_image=inputs.read,
                lora_dir=settings.lora_dir,
                lora_cache_sets=settings.lora_cache_sets,
                lora_skip_misfits=settings.lora_skip_misfits,
                compiling=Compiling(
                    settings.compile,
                    settings.data_dir / COMPILED_FOLDER,
                    is_awaited=settings.warm == "presets",
                    templates=settings.experimental == "templates",
                ),
                takes_float8=takes_float8 if settings.experimental == "float8" else None,
            )

    worker = BatchWorker(
        connection,
        settings,
        engine_factory=make_engine,
        store=store,
        inputs=inputs,
        signer=signer,
        output_filter=output_filter,
        version=service_version(),
        warm_up=warm_up_requests(card, settings.warm),
        checkpoint=checkpoint_of(card)[1],
    )
    work_to_end(worker)


def work_to_end(worker: BatchWorker) -> None:
    """Run the worker until it is stopped; then the process ends soon, whatever hangs.

    Python's own end would stop the engine's thread within torch, which aborts the process.
    """
    worker.work()
    end_within(ENDING_SECONDS)
    tracing.flush_spans()
    atexit.register(os._exit, 0)  # runs first, once no thread of the image store runs


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m worker",
        description="Kirazuri worker: keeps the model in memory and runs queued jobs. "
        "KIRAZURI_* variables configure it; the options below override the most common ones.",
    )
    parser.add_argument("--redis-url", help="redis://, rediss:// or unix:// (KIRAZURI_REDIS_URL)")
    parser.add_argument("--card", help="name or .toml path of the model card")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--data-dir", type=Path, help="folder for images, shared with the API")
    options = {name: value for name, value in vars(parser.parse_args()).items() if value}
    try:
        settings = read_settings(**options)
        logs.configure_logging(settings)
        redis_url = redis_dsn(settings)
        check_url(redis_url)
        check_database(redis_url)
        with naming("card"):
            card = load_card(settings.card)
        make_data_folder(settings)
        store = open_store(settings)
        signer = _signer(settings)
        with naming("output_filter"):
            output_filter = open_filter(settings.output_filter) if settings.output_filter else None
    except ValueError as exc:
        parser.exit(WRONG_SETTINGS, f"error: {exc}\n")
    fetch = f"kirazuri checkpoint fetch {settings.card} --checkpoint-dir FOLDER"
    if problem := why_incomplete(card, settings.checkpoint_dir, fetch=fetch):
        parser.exit(1, f"error: {problem}\n")
    tracing.start_tracing("kirazuri-worker")
    run(settings, card, redis_url, store, signer, output_filter)
