"""`python -m tests.support.fake_worker`: the real worker process with a fake engine."""

import argparse
from collections.abc import Callable
from pathlib import Path

from tests.support.fake_engine import FakeEngine
from tests.support.waiting import wait_until
from worker.images.input_images import HeldImages
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.main import work_to_end
from worker.settings import Settings, redis_dsn
from worker.store.image_store import ImageStore, LocalImageStore
from worker.telemetry import logs, tracing


def run_fake_worker(
    settings: Settings,
    *,
    step_seconds: float,
    store: ImageStore | None = None,
    load_until: Path | None = None,
    while_loading: Callable[[], object] = int,
) -> None:
    """Run a worker until it is stopped; its engine is loaded once the file `load_until` exists.

    The engine's thread calls `while_loading` before.
    """
    inputs = HeldImages()
    logs.configure_logging(settings)
    tracing.start_tracing("kirazuri-worker")

    def load() -> FakeEngine:
        while_loading()
        if load_until is not None:
            wait_until(load_until.exists, seconds=600)
        return FakeEngine(step_seconds=step_seconds, card=settings.card, read_image=inputs.read)

    work_to_end(
        BatchWorker(
            connect(redis_dsn(settings)),
            settings,
            engine_factory=load,
            inputs=inputs,
            store=store or LocalImageStore(settings.data_dir / "images"),
            version="test 1.0",
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-seconds", type=float, default=0.01)
    run_fake_worker(Settings(), step_seconds=parser.parse_args().step_seconds)
