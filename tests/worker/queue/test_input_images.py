"""Tests that images which jobs start from are kept until the last of these jobs has ended."""

import json
import time
from typing import Any

import pytest
from redis import Redis

from tests.support.image_stores import image_names
from tests.support.queue_steps import take
from tests.support.requests import make_request
from worker.errors import IdempotencyConflict, QueueFull
from worker.job_errors import job_error
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.owner_index import OldRecords
from worker.queue.worker_queue import WorkerQueue
from worker.runtime.sweeper import Sweeper
from worker.settings import Settings
from worker.store.image_store import LocalImageStore

PHOTO, MASK = "a" * 40 + ".png", "b" * 40 + ".png"
TTL = 86_400


def edit(**changes: Any) -> Any:
    return make_request(init_image=PHOTO, strength=0.5, mask=MASK, **changes)


def score(client: "Redis", name: str) -> float:
    found = client.zscore(redis_keys.IMAGES, name)
    assert found is not None
    return float(found)


async def test_admission_holds_images_and_the_end_sets_their_expiry(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, removal: ImageRemoval
) -> None:
    job = await queue.admit(edit())
    assert redis_client.smembers(redis_keys.holders_key(PHOTO)) == {job.id.encode()}
    for name in (PHOTO, MASK):
        assert score(redis_client, name) == pytest.approx(time.time() + TTL, abs=60)
        redis_client.zadd(redis_keys.IMAGES, {name: time.time() - 1})
    assert removal.begin() == []  # a job that still waits needs them
    assert score(redis_client, PHOTO) > time.time() + 3000
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1, MASK: time.time() - 1})
    take(worker_queue, job.id, "t1")
    worker_queue.commit(job.id, "t1", "succeeded")
    done = await queue.get(job.id)
    assert done.expires_at is not None
    for name in (PHOTO, MASK):
        assert not redis_client.exists(redis_keys.holders_key(name))
        assert score(redis_client, name) == pytest.approx(done.expires_at.timestamp(), abs=1)


@pytest.mark.parametrize("end", ["cancelled", "failed", "lost"])
async def test_every_end_releases_the_images(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, end: str
) -> None:
    job = await queue.admit(edit())
    if end == "cancelled":
        await queue.cancel(job.id)
    elif end == "failed":
        take(worker_queue, job.id, "t1")
        worker_queue.commit(job.id, "t1", "failed", error=job_error("input_missing", "gone"))
    else:
        for attempt in range(4):
            take(worker_queue, job.id, f"t{attempt}", lease=-1)
    assert (await queue.get(job.id)).status in ("cancelled", "failed")
    assert not redis_client.exists(redis_keys.holders_key(PHOTO), redis_keys.holders_key(MASK))
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=60)


async def test_a_released_job_still_holds_its_images(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(edit())
    take(worker_queue, job.id, "t1")
    worker_queue.release(job.id, "t1", "worker_stopped", is_free=True)
    assert redis_client.smembers(redis_keys.holders_key(PHOTO)) == {job.id.encode()}


async def test_an_image_is_held_until_both_jobs_have_ended(
    queue: JobQueue, redis_client: "Redis", removal: ImageRemoval
) -> None:
    first, second = await queue.admit(edit()), await queue.admit(edit(seed=2))
    await queue.cancel(first.id)
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1})
    assert removal.begin() == []
    await queue.cancel(second.id)
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() - 1})
    assert removal.begin() == [PHOTO]


async def test_an_existing_image_is_kept_as_long_as_the_later_job(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    redis_client.zadd(redis_keys.IMAGES, {PHOTO: time.time() + 10, MASK: time.time() + 10 * TTL})
    await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=60)
    assert score(redis_client, MASK) == pytest.approx(time.time() + 10 * TTL, abs=60)


async def test_images_of_a_refused_request_are_removed_soon(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    queue = JobQueue(redis_url, settings.model_copy(update={"max_queue": 1}))
    await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    with pytest.raises(QueueFull):
        await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + 60, abs=60)
    redis_client.zadd(redis_keys.IMAGES, {MASK: time.time() + TTL})
    with pytest.raises(IdempotencyConflict):
        await queue.admit(edit(), idempotency_key="k", fingerprint="g")
    assert score(redis_client, MASK) > time.time() + 1000  # another job's image stays
    assert not redis_client.exists(redis_keys.holders_key(PHOTO))
    await queue.close()


def test_the_sweep_removes_an_image_after_the_last_job_that_needs_it(
    removal: ImageRemoval,
    settings: Settings,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", 0)
    store = LocalImageStore(settings.data_dir / "images")
    held, free = store.put(b"held", "png"), store.put(b"free", "png")
    redis_client.sadd(redis_keys.holders_key(held), "a job that waits")
    sweeper = Sweeper(store, removal, OldRecords(removal._redis), result_ttl=TTL)
    for kept in ([held], []):
        redis_client.zadd(redis_keys.IMAGES, {held: time.time() - 1, free: time.time() - 1})
        sweeper.wake()
        sweeper.finish()
        assert image_names(store) == kept
        redis_client.delete(redis_keys.holders_key(held))
    sweeper.stop()


async def test_a_record_of_the_previous_release_ends_well(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    request = json.loads(redis_client.hget(redis_keys.job_key(job.id), "request") or b"{}")
    for name in ("init_image", "strength", "mask", "hires"):
        del request[name]
    redis_client.hset(redis_keys.job_key(job.id), "request", json.dumps(request))
    redis_client.hdel(redis_keys.job_key(job.id), "inputs")
    take(worker_queue, job.id, "t1")
    assert worker_queue.commit(job.id, "t1", "succeeded") == "succeeded"
    assert (await queue.get(job.id)).request == make_request()
