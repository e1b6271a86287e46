"""Workers that cannot go on end: while loading, while running, and after they have signed off."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from tests.support.fake_engine import FakeEngine
from tests.support.image_stores import HangingStore
from tests.support.requests import make_request
from tests.support.run_worker import Died, die
from tests.support.waiting import async_wait_until
from tests.support.worker_process import WorkerProcess
from worker.queue.job_queue import JobQueue
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


@contextmanager
def dying_worker(client: "Redis", settings: Settings, **options: Any) -> Iterator[BatchWorker]:
    worker = BatchWorker(
        client,
        settings,
        store=LocalImageStore(settings.data_dir / "images"),
        version="test",
        die=die,
        **options,
    )
    yield worker
    worker.engine.stop()
    worker.publisher.stop()


def test_an_engine_that_hangs_while_loading_ends_the_process(
    redis_client: "Redis", settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = threading.Event()

    def load() -> FakeEngine:
        loaded.wait(120)
        return FakeEngine()

    patient = settings.model_copy(update={"load_seconds": 0.3})
    with dying_worker(redis_client, patient, engine_factory=load) as worker:
        with pytest.raises(Died, match="70"):
            worker.work()
        loaded.set()
    assert "event=loading_hangs" in caplog.text


def test_an_engine_that_hangs_while_warming_up_ends_the_process(
    redis_client: "Redis", settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = tmp_path / "go"
    patient = settings.model_copy(update={"load_seconds": 0.3})
    warm_up = [make_request(f"until={go}")]
    with dying_worker(redis_client, patient, engine_factory=FakeEngine, warm_up=warm_up) as worker:
        with pytest.raises(Died, match="70"):
            worker.work()
        go.touch()
    assert "event=loading_hangs" in caplog.text


def test_a_long_load_is_no_hang_of_a_step(redis_client: "Redis", settings: Settings) -> None:
    """Loading has its own limit: a large checkpoint on a slow disk takes its time."""
    loaded = threading.Event()

    def load() -> FakeEngine:
        loaded.wait(120)
        return FakeEngine()

    hasty = settings.model_copy(update={"hang_seconds": 0.01, "load_seconds": 3600})
    with dying_worker(redis_client, hasty, engine_factory=load) as worker:
        stop = threading.Timer(0.5, worker.stop)
        stop.start()
        worker.work()
        loaded.set()


async def test_a_worker_is_stopped_while_it_loads(
    queue: JobQueue, redis_url: str, settings: Settings, tmp_path: Path
) -> None:
    worker = WorkerProcess(
        settings.model_copy(update={"redis_url": SecretStr(redis_url)}),
        tmp_path / "worker.log",
        step_seconds=0.01,
        load_until=tmp_path / "never",
    )

    async def is_known() -> bool:
        return [status.is_warm for status in await queue.state.workers()] == [False]

    await async_wait_until(is_known)
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert await queue.state.workers() == []


async def test_a_worker_whose_store_hangs_ends_after_it_has_signed_off(
    queue: JobQueue, redis_url: str, settings: Settings, tmp_path: Path
) -> None:
    """Python would wait for the thread that holds the call."""
    job = await queue.admit(make_request())
    worker = WorkerProcess(
        settings.model_copy(update={"redis_url": SecretStr(redis_url), "drain_seconds": 0}),
        tmp_path / "worker.log",
        step_seconds=0.01,
        store=HangingStore(settings.data_dir / "images"),
    )
    await async_wait_until(lambda: HangingStore.is_waiting(settings.data_dir / "images"))
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert "event=ending_hangs" in worker.log()
    assert (await queue.get(job.id)).status == "queued"
