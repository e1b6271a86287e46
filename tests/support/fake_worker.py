"""`python -m tests.support.fake_worker`: the real worker process with a fake engine."""

import argparse

from tests.support.fake_engine import FakeEngine
from worker.images.input_images import HeldImages
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings, redis_dsn
from worker.store.image_store import LocalImageStore
from worker.telemetry import logs, tracing


def run_fake_worker(settings: Settings, *, step_seconds: float) -> None:
    """Run a worker until it is stopped."""
    inputs = HeldImages()
    logs.configure_logging(settings)
    tracing.start_tracing("kirazuri-worker")
    BatchWorker(
        connect(redis_dsn(settings)),
        settings,
        engine_factory=lambda: FakeEngine(
            step_seconds=step_seconds, card=settings.card, read_image=inputs.read
        ),
        inputs=inputs,
        store=LocalImageStore(settings.data_dir / "images"),
        version="test 1.0",
    ).work()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-seconds", type=float, default=0.01)
    run_fake_worker(Settings(), step_seconds=parser.parse_args().step_seconds)
