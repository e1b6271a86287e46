"""Images that cannot be stored: the worker keeps them, tries again, hands jobs back, loses none.

The control loop runs with a fake engine and with real stores that are full or unreachable.
"""

import asyncio
import io
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from model.engine.protocol import ImageReady
from model.recipes.recipe import Recipe
from tests.support.disks import limited_files, small_disk
from tests.support.fake_engine import FakeEngine, pixels
from tests.support.queue_steps import follow_events
from tests.support.requests import make_request
from tests.support.run_worker import Died, RunWorker, await_heartbeats, die
from tests.support.s3_server import FaultyProxy, Mode, S3Server
from tests.support.waiting import async_wait_until, wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.publisher import Publisher, StoreUnavailable
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import LocalImageStore
from worker.store.s3 import S3ImageStore


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.runtime.publisher._PAUSES", (0.05, 0.2))
    monkeypatch.setattr("worker.runtime.publisher._PROBE_SECONDS", 0.1)


async def events_of(queue: JobQueue, job: Job) -> list[str]:
    names = [event.event async for event in follow_events(queue, job.id)]
    return [name for name in names if name not in ("progress", "preview")]


def block(settings: Settings) -> Path:
    """Put a file in place of the folder of images; without it the store works again."""
    blocked = settings.data_dir / "images"
    blocked.write_text("in the way")
    return blocked


async def test_a_short_outage_costs_nothing(
    queue: JobQueue, run_worker: RunWorker, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed, num_images=2)) for seed in (1, 10, 60)]
    with run_worker():
        wait_until(lambda: caplog.text.count("event=store_failed") >= 6)
        assert [(await queue.get(job.id)).status for job in jobs] == ["running"] * 3
        blocked.unlink()
        done = [await queue.wait(job.id, 60) for job in jobs]
    assert [(job.status, job.attempts, len(job.images)) for job in done] == [
        ("succeeded", 1, 2)
    ] * 3
    for job in jobs:
        assert await events_of(queue, job) == ["queued", "started", "image", "image", "succeeded"]


async def test_a_long_outage_hands_jobs_back_and_uses_no_attempt(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(5)]
    with run_worker(changes={"store_patience_seconds": 0.4, "max_running": 2}) as worker:
        await async_wait_until(lambda: worker.publisher.is_down and not worker.slots)
        await await_heartbeats(queue)
        handed = [await queue.get(job.id) for job in jobs]
        assert [(job.status, job.attempts) for job in handed] == [("queued", 0)] * 5
        (seen,) = await queue.state.workers()
        assert not seen.is_warm
        blocked.unlink()
        done = [await queue.wait(job.id, 60) for job in jobs]
        wait_until(lambda: not worker.publisher.is_down)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 5
    events = [await events_of(queue, job) for job in jobs]
    assert ["queued", "started", "retrying", "started", "image", "succeeded"] in events
    assert ["queued", "started", "image", "succeeded"] in events


async def test_a_worker_with_too_many_unstored_images_takes_no_jobs(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    blocked = block(settings)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    with run_worker(changes={"max_unstored": 3}) as worker:
        await async_wait_until(lambda: worker.publisher.pending == 3)
        jobs += [await queue.admit(make_request(seed=seed)) for seed in range(3, 6)]
        await await_heartbeats(queue)
        assert [(await queue.get(job.id)).status for job in jobs[3:]] == ["queued"] * 3
        blocked.unlink()
        done = [await queue.wait(job.id, 60) for job in jobs]
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 6


async def test_a_cancelled_job_does_not_wait_for_the_store(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    block(settings)
    job = await queue.admit(make_request())
    with run_worker() as worker:
        wait_until(lambda: worker.publisher.pending == 1)
        await queue.cancel(job.id)
        assert (await queue.wait(job.id, 60)).status == "cancelled"
        wait_until(lambda: worker.publisher.pending == 0)


async def test_stopping_hands_back_jobs_whose_images_cannot_be_stored(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    block(settings)
    job = await queue.admit(make_request())
    with run_worker(changes={"drain_seconds": 0.2, "store_patience_seconds": 3600}) as worker:
        wait_until(lambda: worker.publisher.pending == 1)
    handed = await queue.get(job.id)
    assert (handed.status, handed.attempts) == ("queued", 0)


async def test_an_image_that_the_store_refuses_fails_alone(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    """Noise of 1024x1024 pixels makes a file of 3 MB, which exceeds the quota."""
    large = await queue.admit(make_request(width=1024, height=1024, steps=1))
    small = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    with limited_files(1_500_000), run_worker(changes={"store_patience_seconds": 0.2}):
        done = [await queue.wait(job.id, 60) for job in small]
        failed = await queue.wait(large.id, 60)
    assert {job.status for job in done} == {"succeeded"}
    assert (failed.status, failed.attempts) == ("failed", 3)
    assert failed.error is not None
    assert (failed.error.code, failed.error.status) == ("storage", 503)


async def test_a_full_disk_loses_nothing(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    """Each of 24 images has about 200 kB; the disk has 2 MB at first, later 30."""
    with small_disk(settings.data_dir / "images", "2m") as resize:
        store = LocalImageStore(settings.data_dir / "images")
        jobs = [
            await queue.admit(make_request(seed=10 * seed, width=256, height=256, num_images=2))
            for seed in range(12)
        ]
        with run_worker(changes={"store_patience_seconds": 0.5}) as worker:
            wait_until(lambda: worker.publisher.is_down)
            resize("30m")
            done = [await queue.wait(job.id, 60) for job in jobs]
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
        done = await asyncio.gather(*(queue.wait(job.id, 60) for job in jobs))
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 6
    for image in (image for job in done for image in job.images):
        assert len(store.read(image.name)) == image.bytes
    assert len(list(store.list_images())) == 12


def test_a_read_does_not_say_that_the_store_is_up(settings: Settings) -> None:
    """A full disk can be read, and the next image would fail as the last one did."""
    folder = settings.data_dir / "images"
    with small_disk(folder, "2m"):
        store = LocalImageStore(folder)
        shown = io.BytesIO()
        Image.new("RGB", (64, 64)).save(shown, "PNG")
        name = store.put(shown.getvalue(), "png")
        with suppress(OSError):
            (folder / "full").write_bytes(b"0" * 3_000_000)
        publisher = Publisher(store, patience=0)
        image = ImageReady("job", 0, 1, pixels(make_request(), 0))
        try:
            with pytest.raises(StoreUnavailable):
                publisher.publish("token", image, make_request(), Recipe()).result(60)
            assert publisher.is_down
            assert name in publisher.fetch("token", [name]).result(60)
            assert publisher.is_down, "only a write clears it"
            (folder / "full").unlink()
            wait_until(lambda: not publisher.is_down)
        finally:
            publisher.stop()


def test_input_images_are_read_while_all_writes_hang(settings: Settings) -> None:
    shown = io.BytesIO()
    Image.new("RGB", (64, 64)).save(shown, "PNG")
    name = LocalImageStore(settings.data_dir / "images").put(shown.getvalue(), "png")
    StuckStore.released.clear()
    publisher = Publisher(StuckStore(settings.data_dir / "images"))
    image = ImageReady("job", 0, 1, pixels(make_request(), 0))
    writes = [publisher.publish("token", image, make_request(), Recipe()) for _ in range(4)]
    try:
        assert name in publisher.fetch("token", [name]).result(60)
        assert not any(write.done() for write in writes)
    finally:
        StuckStore.released.set()
        publisher.stop()


class StuckStore(LocalImageStore):
    """A store whose calls hang, like those of a network disk without its server."""

    released = threading.Event()

    def put(self, data: bytes, extension: str) -> str:
        self.released.wait(120)
        return super().put(data, extension)


async def test_a_store_that_hangs_ends_the_worker(
    queue: JobQueue, redis_url: str, settings: Settings
) -> None:
    StuckStore.released.clear()
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
        with pytest.raises(Died, match="70"):
            worker.work()
        StuckStore.released.set()
        worker.engine.stop()
        worker.publisher.stop()
    assert (await queue.get(job.id)).status == "running"
