"""Pictures that jobs start from: kept as long as their jobs, gone with them, named when missing."""

import io
import json
import time
from typing import Any

import numpy
import pytest
from PIL import Image
from redis import Redis

from model.errors import InputMissing
from tests.support.queue_steps import take
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.s3_server import FaultyProxy, S3Server
from tests.support.waiting import wait_until
from worker.errors import IdempotencyConflict, QueueFull
from worker.images.input_images import HeldImages
from worker.job_errors import job_error
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import WorkerQueue
from worker.runtime.publisher import Publisher
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import LocalImageStore
from worker.store.s3 import S3ImageStore

PHOTO, MASK = "a" * 40 + ".png", "b" * 40 + ".png"
TTL = 86_400


def edit(**changes: Any) -> Any:
    return make_request(init_image=PHOTO, strength=0.5, mask=MASK, **changes)


def score(client: "Redis", name: str) -> float:
    found = client.zscore(redis_keys.IMAGES, name)
    assert found is not None
    return float(found)


async def test_admission_keeps_the_pictures_and_the_end_sets_their_time(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, removal: ImageRemoval
) -> None:
    job = await queue.admit(edit())
    assert redis_client.smembers(redis_keys.holders_key(PHOTO)) == {job.id.encode()}
    for name in (PHOTO, MASK):
        assert score(redis_client, name) == pytest.approx(time.time() + TTL, abs=5)
        redis_client.zadd(redis_keys.IMAGES, {name: time.time() - 1})
    assert removal.begin() == []  # a job that waits for long still needs them
    assert score(redis_client, PHOTO) > time.time() + 3000
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1, MASK: time.time() - 1})
    take(redis_client, worker_queue, job.id, "t1")
    worker_queue.commit(job.id, "t1", "succeeded")
    done = await queue.get(job.id)
    assert done.expires_at is not None
    for name in (PHOTO, MASK):
        assert not redis_client.exists(redis_keys.holders_key(name))
        assert score(redis_client, name) == pytest.approx(done.expires_at.timestamp(), abs=1)


@pytest.mark.parametrize("end", ["cancelled", "failed", "lost"])
async def test_every_end_lets_go(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, end: str
) -> None:
    job = await queue.admit(edit())
    if end == "cancelled":
        await queue.cancel(job.id)
    elif end == "failed":
        take(redis_client, worker_queue, job.id, "t1")
        worker_queue.commit(job.id, "t1", "failed", error=job_error("input_missing", "gone"))
    else:
        for attempt in range(4):
            take(redis_client, worker_queue, job.id, f"t{attempt}", lease=-1)
    assert (await queue.get(job.id)).status in ("cancelled", "failed")
    assert not redis_client.exists(redis_keys.holders_key(PHOTO), redis_keys.holders_key(MASK))
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=5)


async def test_a_job_that_is_given_back_keeps_holding(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(edit())
    take(redis_client, worker_queue, job.id, "t1")
    worker_queue.release(job.id, "t1", "worker_stopped", is_free=True)
    assert redis_client.smembers(redis_keys.holders_key(PHOTO)) == {job.id.encode()}


async def test_one_picture_serves_two_jobs_until_both_are_over(
    queue: JobQueue, redis_client: "Redis", removal: ImageRemoval
) -> None:
    first, second = await queue.admit(edit()), await queue.admit(edit(seed=2))
    await queue.cancel(first.id)
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1})
    assert removal.begin() == []
    await queue.cancel(second.id)
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1})
    assert removal.begin() == [PHOTO]


async def test_an_earlier_image_lives_as_long_as_the_later_job(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() + 10, MASK: time.time() + 10 * TTL})
    await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=5)
    assert score(redis_client, MASK) == pytest.approx(time.time() + 10 * TTL, abs=5)


async def test_pictures_of_a_refused_request_go_soon(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    queue = JobQueue(redis_url, settings.model_copy(update={"max_queue": 1}))
    await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    with pytest.raises(QueueFull):
        await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + 60, abs=5)
    redis_client.zadd(redis_keys.IMAGES, {MASK: time.time() + TTL})
    with pytest.raises(IdempotencyConflict):
        await queue.admit(edit(), idempotency_key="k", fingerprint="g")
    assert score(redis_client, MASK) > time.time() + 1000  # another job's picture stays
    assert not redis_client.exists(redis_keys.holders_key(PHOTO))
    await queue.close()


async def test_the_sweep_takes_a_picture_after_its_job_and_not_before(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", 0)
    store = LocalImageStore(settings.data_dir / "images")
    held, free = store.put(b"held", "png"), store.put(b"free", "png")
    redis_client.sadd(redis_keys.holders_key(held), "a job that waits")
    redis_client.zadd(redis_keys.IMAGES, {held: time.time() - 1, free: time.time() - 1})
    with run_worker():
        wait_until(lambda: [name for name, _ in store.list_images()] == [held])
        assert score(redis_client, held) > time.time()
        redis_client.delete(redis_keys.holders_key(held))
        redis_client.zadd(redis_keys.IMAGES, {held: time.time() - 1})
        wait_until(lambda: not list(store.list_images()))


async def test_a_record_of_the_release_before_ends_well(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    request = json.loads(redis_client.hget(redis_keys.job_key(job.id), "request") or b"{}")
    for name in ("init_image", "strength", "mask", "hires"):
        del request[name]
    redis_client.hset(redis_keys.job_key(job.id), "request", json.dumps(request))
    redis_client.hdel(redis_keys.job_key(job.id), "inputs")
    take(redis_client, worker_queue, job.id, "t1")
    assert worker_queue.commit(job.id, "t1", "succeeded") == "succeeded"
    assert (await queue.get(job.id)).request == make_request()


# -- reading them ------------------------------------------------------------------------------


def white(kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (24, 16), "white").save(buffer, kind, lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")])
def test_pictures_are_read_as_eight_bit_rgb(settings: Settings, kind: str, mode: str) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    name = store.put(white(kind, mode), kind.lower())
    publisher, inputs = Publisher(store), HeldImages()
    inputs.hold("token", publisher.fetch("token", [name]).result(10))
    pixels = inputs.read(name)
    assert pixels.shape == (16, 24, 3)
    assert pixels.dtype == numpy.uint8
    assert (pixels == 255).all()
    inputs.release("token")
    with pytest.raises(InputMissing):
        inputs.read(name)
    publisher.stop()


def test_what_cannot_be_read_is_missing(settings: Settings) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    publisher = Publisher(store)
    expired, broken = store.put(b"x", "png"), store.put(b"no picture", "png")
    store.delete(expired)
    for name in (PHOTO, expired, broken, "../secret"):
        with pytest.raises(InputMissing):
            publisher.fetch("token", [name]).result(10)
    publisher.stop()


def test_two_jobs_may_hold_the_same_picture() -> None:
    inputs, pixels = HeldImages(), numpy.zeros((1, 1, 3), numpy.uint8)
    for token in ("a", "b"):
        inputs.hold(token, {PHOTO: pixels})
    inputs.release("a")
    assert inputs.read(PHOTO) is pixels


async def test_the_engine_gets_a_job_with_its_pictures(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    name = store.put(white(), "png")
    job = await queue.admit(make_request(init_image=name, strength=0.5, width=24, height=16))
    gone = await queue.admit(edit())
    with run_worker() as worker:
        assert (await queue.wait(job.id, 10)).status == "succeeded"
        failed = await queue.wait(gone.id, 10)
        wait_until(lambda: not worker.inputs._held)
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error is not None
    assert (failed.error.code, failed.error.status) == ("input_missing", 422)
    assert PHOTO in failed.error.detail


async def test_a_store_that_is_away_costs_no_try_and_keeps_no_other_job_waiting(
    queue: JobQueue, run_worker: RunWorker, s3_proxy: FaultyProxy, s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("worker.runtime.publisher._PROBE_SECONDS", 0.1)
    monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_TRANSFER_SECONDS", 1)
    store = S3ImageStore(s3_server.bucket("inputs", endpoint=s3_proxy.url))
    name = store.put(white(), "png")
    s3_proxy.set("hang")
    start = await queue.admit(make_request(init_image=name, strength=0.5))
    other = await queue.admit(make_request(steps=20))
    with run_worker(
        store=store, changes={"store_patience_seconds": 1}, step_seconds=0.01
    ) as worker:
        wait_until(lambda: worker.engine.stats.forwards >= 20)
        wait_until(lambda: worker.publisher.is_down)
        assert {(await queue.get(job.id)).status for job in (start, other)} <= {"queued", "running"}
        s3_proxy.set("pass")
        done = [await queue.wait(job.id, 20) for job in (start, other)]
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 2
