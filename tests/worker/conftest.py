"""Short leases, a queue, and a worker that runs in a thread with a fake engine."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.fake_engine import FakeEngine
from tests.support.run_worker import RunWorker
from worker.images.input_images import HeldImages
from worker.images.output_filter import OutputFilter
from worker.images.signing import ImageSigner
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.worker_queue import WorkerQueue
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings
from worker.store.image_store import ImageStore, LocalImageStore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        lease_seconds=2,
        heartbeat_seconds=0.2,
        maintenance_seconds=0.3,
        drain_seconds=60,
    )


@pytest.fixture
async def queue(redis_url: str, settings: Settings) -> AsyncIterator[JobQueue]:
    queue = JobQueue(redis_url, settings)
    yield queue
    await queue.close()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["Redis"]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def worker_queue(redis_client: "Redis", settings: Settings) -> WorkerQueue:
    return WorkerQueue(redis_client, settings)


@pytest.fixture
def removal(redis_client: "Redis") -> ImageRemoval:
    return ImageRemoval(redis_client)


@pytest.fixture
def run_worker(redis_url: str, settings: Settings) -> RunWorker:
    """`with run_worker(step_seconds=…) as worker:` runs the control loop in a thread."""

    @contextmanager
    def run(
        *,
        url: str = redis_url,
        is_drained: bool = True,
        kind: type[FakeEngine] = FakeEngine,
        store: ImageStore | None = None,
        signer: ImageSigner | None = None,
        output_filter: OutputFilter | None = None,
        changes: dict[str, Any] | None = None,
        **engine: Any,
    ) -> Iterator[BatchWorker]:
        inputs = HeldImages()
        worker = BatchWorker(
            connect(url),
            settings.model_copy(update=changes),
            engine_factory=lambda: kind(read_image=inputs.read, **engine),
            inputs=inputs,
            store=store or LocalImageStore(settings.data_dir / "images"),
            signer=signer,
            output_filter=output_filter,
            version="test 1.0",
        )
        thread = threading.Thread(target=worker.work, name="control")
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            if not is_drained:
                worker.stop()
            thread.join(timeout=90)
            worker.connection.close()
            assert not thread.is_alive()

    return run
