"""Pictures that cannot be stored just now: kept, tried again, handed back, and never lost.

The control loop around a fake engine, with real stores that are really full or away.
"""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.support.disks import limited_files, small_disk
from tests.support.fake_engine import FakeEngine
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.s3_server import FaultyProxy, Mode, S3Server
from tests.support.waiting import wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import LocalImageStore
from worker.store.s3 import S3ImageStore


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.runtime.publisher._PAUSES", (0.05, 0.2))
    monkeypatch.setattr("worker.runtime.publisher._PROBE_SECONDS", 0.1)


async def events_of(queue: JobQueue, job: Job) -> list[str]:
    told = [event.event async for event in queue.events(job.id)]
    return [event for event in told if event not in ("progress", "preview")]


def block(settings: Settings) -> Path:
    """Something in the way of the folder of images; remove it to let the store work again."""
    blocked = settings.data_dir / "images"
    blocked.write_text("in the way")
    return blocked


async def test_a_short_outage_costs_nothing(
    queue: JobQueue, run_worker: RunWorker, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed, num_images=2)) for seed in (1, 10, 20)]
    with run_worker():
        wait_until(lambda: caplog.text.count("event=store_failed") >= 6)
        assert [(await queue.get(job.id)).status for job in jobs] == ["running"] * 3
        blocked.unlink()
        done = [await queue.wait(job.id, 10) for job in jobs]
    assert [(job.status, job.attempts, len(job.images)) for job in done] == [
        ("succeeded", 1, 2)
    ] * 3
    for job in jobs:
        assert await events_of(queue, job) == ["queued", "started", "image", "image", "succeeded"]


async def test_a_long_outage_sends_jobs_back_and_uses_no_try(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(5)]
    with run_worker(changes={"store_patience_seconds": 0.4, "max_running": 2}) as worker:
        wait_until(lambda: worker.publisher.is_down and not worker.slots)
        await asyncio.sleep(0.5)
        handed = [await queue.get(job.id) for job in jobs]
        assert [(job.status, job.attempts) for job in handed] == [("queued", 0)] * 5
        (seen,) = await queue.state.workers()
        assert not seen.is_warm
        blocked.unlink()
        done = [await queue.wait(job.id, 10) for job in jobs]
        wait_until(lambda: not worker.publisher.is_down)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 5
    told = [await events_of(queue, job) for job in jobs]
    assert ["queued", "started", "retrying", "started", "image", "succeeded"] in told
    assert ["queued", "started", "image", "succeeded"] in told


async def test_a_worker_takes_no_more_than_it_can_keep(
    queue: JobQueue, run_worker: RunWorker, settings: Settings, redis_client: "Redis"
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(12)]
    with run_worker(changes={"max_unstored": 3, "max_running": 4}) as worker:
        wait_until(lambda: worker.publisher.pending >= 3)
        await asyncio.sleep(0.3)
        assert worker.publisher.pending <= 6
        assert redis_client.zcard(redis_keys.QUEUED) >= 6
        blocked.unlink()
        done = [await queue.wait(job.id, 10) for job in jobs]
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 12


async def test_a_cancelled_job_does_not_wait_for_the_store(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    block(settings)
    job = await queue.admit(make_request())
    with run_worker() as worker:
        wait_until(lambda: worker.publisher.pending == 1)
        await queue.cancel(job.id)
        assert (await queue.wait(job.id, 2)).status == "cancelled"
        wait_until(lambda: worker.publisher.pending == 0, seconds=1)


async def test_stopping_hands_back_what_cannot_be_stored(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    block(settings)
    job = await queue.admit(make_request())
    began = time.monotonic()
    with run_worker(changes={"drain_seconds": 0.5}) as worker:
        wait_until(lambda: worker.publisher.pending == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    handed = await queue.get(job.id)
    assert (handed.status, handed.attempts) == ("queued", 0)


async def test_a_picture_that_alone_is_refused_fails_alone(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    """Noise of 1024x1024 pixels is a file of 3 MB: beyond the quota, unlike the others."""
    large = await queue.admit(make_request(width=1024, height=1024, steps=1))
    small = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    with limited_files(1_500_000), run_worker(changes={"store_patience_seconds": 0.2}):
        done = [await queue.wait(job.id, 20) for job in small]
        failed = await queue.wait(large.id, 20)
    assert {job.status for job in done} == {"succeeded"}
    assert (failed.status, failed.attempts) == ("failed", 3)
    assert failed.error is not None
    assert (failed.error.code, failed.error.status) == ("storage", 503)


async def test_a_full_disk_loses_nothing(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    """Each picture has about 200 kB, the disk has 2 MB and then 30."""
    with small_disk(settings.data_dir / "images", "2m") as resize:
        store = LocalImageStore(settings.data_dir / "images")
        jobs = [
            await queue.admit(make_request(seed=10 * seed, width=256, height=256, num_images=2))
            for seed in range(12)
        ]
        with run_worker(changes={"store_patience_seconds": 0.5}) as worker:
            wait_until(lambda: worker.publisher.is_down)
            await asyncio.sleep(0.5)
            resize("30m")
            done = [await queue.wait(job.id, 20) for job in jobs]
        assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 12
        for image in (image for job in done for image in job.images):
            assert len(store.read(image.name)) == image.bytes
        assert len(list(store.list_images())) == 24


@pytest.mark.parametrize("mode", ["refuse", "503", "hang"])
async def test_a_bucket_that_is_away_loses_nothing(
    queue: JobQueue,
    run_worker: RunWorker,
    s3_server: S3Server,
    s3_proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
) -> None:
    monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_TRANSFER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_FAILED_SECONDS", 0.2)
    store = S3ImageStore(s3_server.bucket(f"worker/{mode}", endpoint=s3_proxy.url))
    s3_proxy.set(mode)
    jobs = [await queue.admit(make_request(seed=10 * n, num_images=2)) for n in range(6)]
    with run_worker(store=store, changes={"store_patience_seconds": 1}) as worker:
        wait_until(lambda: worker.publisher.is_down)
        assert {(await queue.get(job.id)).status for job in jobs} <= {"running", "queued"}
        s3_proxy.set("pass")
        done = await asyncio.gather(*(queue.wait(job.id, 20) for job in jobs))
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 6
    for image in (image for job in done for image in job.images):
        assert len(store.read(image.name)) == image.bytes
    assert len(list(store.list_images())) == 12


class StuckStore(LocalImageStore):
    """A store that never comes back from a call, as a disk whose server is gone."""

    def put(self, data: bytes, extension: str) -> str:
        threading.Event().wait(3)
        return super().put(data, extension)


async def test_a_store_that_hangs_for_ever_ends_the_worker(
    queue: JobQueue, redis_url: str, settings: Settings
) -> None:
    class Died(Exception):
        pass

    def die(code: int) -> None:
        raise Died(code)

    job = await queue.admit(make_request())
    with connect(redis_url) as connection:
        worker = BatchWorker(
            connection,
            settings.model_copy(update={"hang_seconds": 0.5}),
            engine_factory=FakeEngine,
            store=StuckStore(settings.data_dir / "images"),
            version="test",
            die=die,
        )
        began = time.monotonic()
        with pytest.raises(Died, match="70"):
            worker.work()
        assert time.monotonic() - began < 2.5
        worker.engine.stop()
        worker.publisher.stop()
    assert (await queue.get(job.id)).status == "running"
