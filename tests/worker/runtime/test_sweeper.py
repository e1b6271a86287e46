"""Deletion of expired images and orphans, and its races with images that are made again."""

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from redis import Redis

from tests.support.queue_steps import follow_events
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.s3_server import FaultyProxy, S3Server
from tests.support.waiting import async_wait_until, wait_until
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.owner_index import OldRecords
from worker.runtime.publisher import PublishedImage, StoreUnavailable
from worker.runtime.sweeper import Sweeper
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.s3 import S3ImageStore


@pytest.fixture
def local(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


def overdue(client: "Redis", *names: str) -> None:
    client.zadd(redis_keys.IMAGES, dict.fromkeys(names, time.time() - 1))


def names(store: ImageStore) -> list[str]:
    return sorted(name for name, _ in store.list_images())


def sweep(store: ImageStore, removal: ImageRemoval, *, result_ttl: float = 86_400) -> None:
    """One whole round."""
    sweeper = Sweeper(store, removal, OldRecords(removal._redis), result_ttl=result_ttl)
    sweeper.wake()
    sweeper.finish()
    sweeper.stop()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_round_deletes_expired_images_and_orphans_only(
    request: pytest.FixtureRequest,
    removal: ImageRemoval,
    redis_client: "Redis",
    local: LocalImageStore,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    store: ImageStore = local
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        store = S3ImageStore(server.bucket("swept"))
    known, old, orphan = (store.put(data, "png") for data in (b"known", b"old", b"orphan"))
    overdue(redis_client, old)
    redis_client.zadd(redis_keys.IMAGES, {known: time.time() + 60})
    sweep(store, removal)
    assert names(store) == sorted([known, old, orphan]), "all of them are fresh"
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", -1)
    overdue(redis_client, old)
    sweep(store, removal)
    assert names(store) == sorted([known, orphan])
    sweep(store, removal, result_ttl=-4000)
    assert names(store) == sorted([known, orphan]), "another worker has looked within the hour"
    redis_client.delete(redis_keys.ORPHAN_SEARCH)
    sweep(store, removal, result_ttl=-4000)
    assert names(store) == [known]
    assert store.read(known) == b"known"


def test_orphans_are_kept_as_long_as_results_and_an_hour(
    removal: ImageRemoval, local: LocalImageStore, tmp_path: Path
) -> None:
    young, old = local.put(b"young", "png"), local.put(b"old", "png")
    for name, hours in ((young, 24.9), (old, 25.1)):
        moment = time.time() - hours * 3600
        os.utime(tmp_path / "images" / name, (moment, moment))
    sweep(local, removal)
    assert names(local) == [young]


def test_a_round_without_a_bucket_leaves_the_images_to_a_later_round(
    removal: ImageRemoval,
    redis_client: "Redis",
    s3_server: S3Server,
    s3_proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", -1)
    monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", 1)
    store = S3ImageStore(s3_server.bucket("kept", endpoint=s3_proxy.url))
    kept = [store.put(data, "png") for data in (b"one", b"two")]
    overdue(redis_client, *kept)
    s3_proxy.set("refuse")
    sweep(store, removal)
    assert "event=not_swept" in caplog.text
    s3_proxy.set("pass")
    assert names(store) == sorted(kept)
    assert redis_client.zcard(redis_keys.IMAGES) == 2
    overdue(redis_client, *kept)
    sweep(store, removal)
    assert names(store) == []


class SlowStore(LocalImageStore):
    """A store that deletes nothing until the test allows it."""

    released = threading.Event()

    def delete(self, name: str) -> None:
        self.released.wait(120)
        super().delete(name)


async def test_a_slow_sweep_delays_no_job(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", -1)
    store = SlowStore(settings.data_dir / "images")
    old = store.put(b"old", "png")
    overdue(redis_client, old)
    with run_worker(store=store):
        wait_until(lambda: redis_client.zcard(redis_keys.REMOVALS) == 1)
        job = await queue.admit(make_request())
        done = await queue.wait(job.id, 60)
        assert (done.status, done.attempts) == ("succeeded", 1)
        SlowStore.released.set()
        wait_until(lambda: old not in names(store))


async def test_an_image_deleted_while_it_is_made_again_is_stored_again(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    removal: ImageRemoval,
    local: LocalImageStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = await queue.admit(make_request())
    repeats: list[str] = []
    with run_worker(changes={"maintenance_seconds": 1e9}) as worker:
        store_again = worker.publisher.store_again

        def watched(token: str, published: PublishedImage) -> Future[PublishedImage]:
            repeats.append(token)
            return store_again(token, published)

        monkeypatch.setattr(worker.publisher, "store_again", watched)
        (image,) = (await queue.wait(first.id, 60)).images
        overdue(redis_client, image.name)
        assert removal.begin() == [image.name]
        second = await queue.admit(make_request())
        await async_wait_until(lambda: repeats)
        assert (await queue.get(second.id)).status == "running", "the removal has not ended"
        local.delete(image.name)
        removal.end([image.name])
        done = await queue.wait(second.id, 60)
    assert (done.status, done.attempts) == ("succeeded", 1)
    assert done.images == (image,)
    assert len(local.read(image.name)) == image.bytes
    names = [event.event async for event in follow_events(queue, second.id)]
    events = [name for name in names if name != "progress"]
    assert events == ["queued", "started", "image", "succeeded"]
    assert redis_client.zscore(redis_keys.IMAGES, image.name) is not None


async def test_an_image_that_cannot_be_stored_again_returns_its_job(
    queue: JobQueue,
    run_worker: RunWorker,
    redis_client: "Redis",
    removal: ImageRemoval,
    local: LocalImageStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = await queue.admit(make_request())
    with run_worker(changes={"maintenance_seconds": 1e9}) as worker:
        (image,) = (await queue.wait(first.id, 60)).images
        overdue(redis_client, image.name)
        assert removal.begin() == [image.name]

        def refused(token: str, published: PublishedImage) -> Future[PublishedImage]:
            local.delete(image.name)
            removal.end([image.name])
            future: Future[PublishedImage] = Future()
            future.set_exception(StoreUnavailable("the disk is full"))
            return future

        monkeypatch.setattr(worker.publisher, "store_again", refused)
        second = await queue.admit(make_request())
        done = await queue.wait(second.id, 30)
    assert done.status == "succeeded"
    names = [event.event async for event in follow_events(queue, second.id)]
    assert names.count("retrying") == 1
