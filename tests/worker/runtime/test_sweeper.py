"""Bytes go with their records, never before, and never those that were just made again."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.queue_steps import IMAGE, report, take
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.s3_server import FaultyProxy, S3Server
from tests.support.waiting import wait_until
from worker.errors import StoreError
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import Report, WorkerQueue
from worker.runtime.sweeper import Sweeper
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.s3 import S3ImageStore

NAME = IMAGE.name
OTHER = "b" * 40 + ".png"


@pytest.fixture
def local(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


def overdue(client: "Redis", *names: str) -> None:
    client.zadd(redis_keys.IMAGES, dict.fromkeys(names, time.time() - 1))


def names(store: ImageStore) -> list[str]:
    return sorted(name for name, _ in store.list_images())


def sweep(store: ImageStore, removal: ImageRemoval, *, result_ttl: float = 86_400) -> None:
    """One whole round."""
    sweeper = Sweeper(store, removal, result_ttl=result_ttl)
    sweeper.wake()
    sweeper.finish()
    sweeper.stop()


# -- the records -----------------------------------------------------------------------------


def test_a_removal_is_begun_once_and_again_if_interrupted(
    removal: ImageRemoval, redis_client: "Redis"
) -> None:
    overdue(redis_client, NAME)
    redis_client.zadd(redis_keys.IMAGES, {OTHER: time.time() + 60})
    assert removal.begin() == [NAME]
    assert removal.begin() == []
    redis_client.zincrby(redis_keys.REMOVALS, -61, NAME)
    assert removal.begin() == [NAME]
    removal.end([NAME])
    assert removal.begin() == []
    redis_client.zincrby(redis_keys.REMOVALS, -3601, NAME)
    removal.end([])
    assert not redis_client.exists(redis_keys.REMOVALS)
    assert redis_client.zrange(redis_keys.IMAGES, 0, -1) == [OTHER.encode()]


def test_only_what_no_record_knows_is_an_orphan(
    removal: ImageRemoval, redis_client: "Redis"
) -> None:
    redis_client.zadd(redis_keys.IMAGES, {NAME: time.time() + 60})
    assert removal.begin([NAME, OTHER]) == [OTHER]
    assert removal.begin([NAME, OTHER]) == []


def test_what_is_left_is_tried_again_in_a_minute(
    removal: ImageRemoval, redis_client: "Redis"
) -> None:
    overdue(redis_client, NAME, OTHER)
    removal.begin()
    removal.end([NAME], [NAME, OTHER])
    for name in (NAME, OTHER):
        score = redis_client.zscore(redis_keys.IMAGES, name)
        assert score == pytest.approx(time.time() + 60, abs=5)
    assert redis_client.zrange(redis_keys.REMOVALS, 0, -1) == [NAME.encode()]


async def test_a_picture_made_before_its_removal_ended_is_to_be_stored_again(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, removal: ImageRemoval
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")

    def tell(began: float) -> Any:
        note = Report("image", IMAGE.model_dump(mode="json"), NAME, image_began=began)
        return report(redis_client, worker_queue, job.id, "t1", note)

    before = time.monotonic()
    overdue(redis_client, NAME)
    removal.begin()
    assert tell(before) == tell(time.monotonic()) == b"again"
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is None
    removal.end([NAME])
    assert tell(before) == b"again"
    assert tell(time.monotonic()) == b"ok"
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is not None
    events: Any = redis_client.xrange(redis_keys.events_key(job.id))
    assert [fields[b"event"] for _, fields in events].count(b"image") == 1


async def test_a_request_that_starts_from_what_is_being_removed_is_to_be_repeated(
    queue: JobQueue, redis_client: "Redis", removal: ImageRemoval
) -> None:
    request = make_request(init_image=NAME, strength=0.5)
    overdue(redis_client, NAME)
    removal.begin()
    with pytest.raises(StoreError, match="being removed"):
        await queue.admit(request)
    removal.end([NAME])
    with pytest.raises(StoreError, match="being removed"):
        await queue.admit(request)
    assert await queue.state.depth() == (0, 0)
    redis_client.zincrby(redis_keys.REMOVALS, -6, NAME)
    await queue.admit(request)
    assert await queue.state.depth() == (1, 0)


# -- the bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_round_takes_the_overdue_and_the_orphans_and_no_others(
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


def test_an_orphan_is_left_for_as_long_as_a_result_and_an_hour(
    removal: ImageRemoval, local: LocalImageStore, tmp_path: Path
) -> None:
    young, old = local.put(b"young", "png"), local.put(b"old", "png")
    for name, hours in ((young, 24.9), (old, 25.1)):
        moment = time.time() - hours * 3600
        os.utime(tmp_path / "images" / name, (moment, moment))
    sweep(local, removal)
    assert names(local) == [young]


def test_a_bucket_that_is_away_keeps_its_pictures_for_a_later_round(
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


# -- beside the control loop -----------------------------------------------------------------


class SlowStore(LocalImageStore):
    """A store that takes longer to delete than a lease lasts."""

    def delete(self, name: str) -> None:
        threading.Event().wait(3)
        super().delete(name)


async def test_a_slow_sweep_keeps_no_job_waiting(
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
    with run_worker(store=store, step_seconds=0.25):
        wait_until(lambda: redis_client.zcard(redis_keys.REMOVALS) == 1)
        job = await queue.admit(make_request(steps=10))
        done = await queue.wait(job.id, 20)
        assert (done.status, done.attempts) == ("succeeded", 1)
        wait_until(lambda: old not in names(store))


async def test_a_picture_that_is_swept_while_it_is_made_again_is_stored_again(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    removal: ImageRemoval,
    local: LocalImageStore,
) -> None:
    first = await queue.admit(make_request())
    with run_worker():
        (image,) = (await queue.wait(first.id, 10)).images
        overdue(redis_client, image.name)
        assert removal.begin() == [image.name]
        second = await queue.admit(make_request())
        waiting = await queue.wait(second.id, 1)
        assert waiting.status == "running", "it waits for the end of the removal"
        local.delete(image.name)
        removal.end([image.name])
        done = await queue.wait(second.id, 10)
    assert (done.status, done.attempts) == ("succeeded", 1)
    assert done.images == (image,)
    assert len(local.read(image.name)) == image.bytes
    told = [event.event async for event in queue.events(second.id) if event.event != "progress"]
    assert told == ["queued", "started", "image", "succeeded"]
    assert redis_client.zscore(redis_keys.IMAGES, image.name) is not None
