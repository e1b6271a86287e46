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
from tests.worker.conftest import RunWorker, make_request, wait_until
from tests.worker.test_ledger import take
from worker import record
from worker.errors import IdempotencyConflict, QueueFull
from worker.failures import job_error
from worker.images import decode
from worker.ledger import WorkerLedger
from worker.main import image_reader
from worker.queue import JobQueue
from worker.settings import Settings
from worker.store import LocalImageStore

PHOTO, MASK = "a" * 40 + ".png", "b" * 40 + ".png"
TTL = 86_400


def edit(**changes: Any) -> Any:
    return make_request(init_image=PHOTO, strength=0.5, mask=MASK, **changes)


def score(client: "Redis", name: str) -> float:
    found = client.zscore(record.IMAGES, name)
    assert found is not None
    return float(found)


async def test_admission_keeps_the_pictures_and_the_end_sets_their_time(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger
) -> None:
    job = await queue.admit(edit())
    assert redis_client.smembers(record.holders_key(PHOTO)) == {job.id.encode()}
    for name in (PHOTO, MASK):
        assert score(redis_client, name) == pytest.approx(time.time() + TTL, abs=5)
        redis_client.zadd(record.IMAGES, {name: time.time() - 1})
    assert ledger.begin_removal() == []  # a job that waits for long still needs them
    assert score(redis_client, PHOTO) > time.time() + 3000
    redis_client.zadd(record.IMAGES, {PHOTO: time.time() - 1, MASK: time.time() - 1})
    take(redis_client, ledger, job.id, "t1")
    ledger.commit(job.id, "t1", "succeeded")
    done = await queue.get(job.id)
    assert done.expires_at is not None
    for name in (PHOTO, MASK):
        assert not redis_client.exists(record.holders_key(name))
        assert score(redis_client, name) == pytest.approx(done.expires_at.timestamp(), abs=1)


@pytest.mark.parametrize("end", ["cancelled", "failed", "lost"])
async def test_every_end_lets_go(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger, end: str
) -> None:
    job = await queue.admit(edit())
    if end == "cancelled":
        await queue.cancel(job.id)
    elif end == "failed":
        take(redis_client, ledger, job.id, "t1")
        ledger.commit(job.id, "t1", "failed", error=job_error("input_missing", "gone"))
    else:
        for attempt in range(4):
            take(redis_client, ledger, job.id, f"t{attempt}", lease=-1)
    assert (await queue.get(job.id)).status in ("cancelled", "failed")
    assert not redis_client.exists(record.holders_key(PHOTO), record.holders_key(MASK))
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=5)


async def test_a_job_that_is_given_back_keeps_holding(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger
) -> None:
    job = await queue.admit(edit())
    take(redis_client, ledger, job.id, "t1")
    ledger.release(job.id, "t1", "worker_stopped", is_free=True)
    assert redis_client.smembers(record.holders_key(PHOTO)) == {job.id.encode()}


async def test_one_picture_serves_two_jobs_until_both_are_over(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger
) -> None:
    first, second = await queue.admit(edit()), await queue.admit(edit(seed=2))
    await queue.cancel(first.id)
    redis_client.zadd(record.IMAGES, {PHOTO: time.time() - 1})
    assert ledger.begin_removal() == []
    await queue.cancel(second.id)
    redis_client.zadd(record.IMAGES, {PHOTO: time.time() - 1})
    assert ledger.begin_removal() == [PHOTO]


async def test_an_earlier_image_lives_as_long_as_the_later_job(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger
) -> None:
    redis_client.zadd(record.IMAGES, {PHOTO: time.time() + 10, MASK: time.time() + 10 * TTL})
    await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + TTL, abs=5)
    assert score(redis_client, MASK) == pytest.approx(time.time() + 10 * TTL, abs=5)


async def test_pictures_of_a_refused_request_go_soon(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    queue = JobQueue.connect(redis_url, settings.model_copy(update={"max_queue": 1}))
    await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    with pytest.raises(QueueFull):
        await queue.admit(edit())
    assert score(redis_client, PHOTO) == pytest.approx(time.time() + 60, abs=5)
    redis_client.zadd(record.IMAGES, {MASK: time.time() + TTL})
    with pytest.raises(IdempotencyConflict):
        await queue.admit(edit(), idempotency_key="k", fingerprint="g")
    assert score(redis_client, MASK) > time.time() + 1000  # another job's picture stays
    assert not redis_client.exists(record.holders_key(PHOTO))
    await queue.close()


async def test_the_sweep_takes_a_picture_after_its_job_and_not_before(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.sweeper._FRESH_SECONDS", 0)
    store = LocalImageStore(settings.data_dir / "images")
    held, free = store.put(b"held", "png"), store.put(b"free", "png")
    redis_client.sadd(record.holders_key(held), "a job that waits")
    redis_client.zadd(record.IMAGES, {held: time.time() - 1, free: time.time() - 1})
    with run_worker():
        wait_until(lambda: [name for name, _ in store.pictures()] == [held])
        assert score(redis_client, held) > time.time()
        redis_client.delete(record.holders_key(held))
        redis_client.zadd(record.IMAGES, {held: time.time() - 1})
        wait_until(lambda: not list(store.pictures()))


async def test_a_record_of_the_release_before_ends_well(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerLedger
) -> None:
    job = await queue.admit(make_request())
    request = json.loads(redis_client.hget(record.job_key(job.id), "request") or b"{}")
    for name in ("init_image", "strength", "mask", "hires"):
        del request[name]
    redis_client.hset(record.job_key(job.id), "request", json.dumps(request))
    redis_client.hdel(record.job_key(job.id), "inputs")
    take(redis_client, ledger, job.id, "t1")
    assert ledger.commit(job.id, "t1", "succeeded") == "succeeded"
    assert (await queue.get(job.id)).request == make_request()


# -- reading them ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")])
def test_the_engine_reads_eight_bit_rgb(settings: Settings, kind: str, mode: str) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    buffer = io.BytesIO()
    Image.new(mode, (24, 16), "white").save(buffer, kind, lossless=True)
    name = store.put(buffer.getvalue(), kind.lower())
    pixels = image_reader(store)(name)
    assert pixels.shape == (16, 24, 3)
    assert pixels.dtype == numpy.uint8
    assert (pixels == 255).all()
    assert (decode(store.read(name)) == pixels).all()


def test_what_cannot_be_read_is_missing(settings: Settings) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    read = image_reader(store)
    expired, broken = store.put(b"x", "png"), store.put(b"no picture", "png")
    store.delete(expired)
    for name in (PHOTO, expired, broken, "../secret"):
        with pytest.raises(InputMissing):
            read(name)
