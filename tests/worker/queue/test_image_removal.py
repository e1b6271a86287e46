"""The records of expired images, orphans and removals."""

import time
from typing import Any

import pytest
from redis import Redis

from tests.support.queue_steps import IMAGE, report, take
from tests.support.requests import make_request
from worker.errors import StoreError
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import Report, WorkerQueue

NAME = IMAGE.name
OTHER = "b" * 40 + ".png"


def overdue(client: "Redis", *names: str) -> None:
    client.zadd(redis_keys.IMAGES, dict.fromkeys(names, time.time() - 1))


def test_a_removal_begins_once_and_again_after_an_interruption(
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


def test_orphans_are_images_without_a_record(removal: ImageRemoval, redis_client: "Redis") -> None:
    redis_client.zadd(redis_keys.IMAGES, {NAME: time.time() + 60})
    assert removal.begin([NAME, OTHER]) == [OTHER]
    assert removal.begin([NAME, OTHER]) == []


def test_images_left_over_are_tried_again_in_a_minute(
    removal: ImageRemoval, redis_client: "Redis"
) -> None:
    overdue(redis_client, NAME, OTHER)
    removal.begin()
    removal.end([NAME], [NAME, OTHER])
    for name in (NAME, OTHER):
        score = redis_client.zscore(redis_keys.IMAGES, name)
        assert score == pytest.approx(time.time() + 60, abs=5)
    assert redis_client.zrange(redis_keys.REMOVALS, 0, -1) == [NAME.encode()]


async def test_an_image_stored_before_the_end_of_its_removal_must_be_stored_again(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, removal: ImageRemoval
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")

    def send(began: float) -> Any:
        image_report = Report("image", IMAGE.model_dump(mode="json"), NAME, image_began=began)
        return report(worker_queue, job.id, "t1", image_report)

    before = time.monotonic()
    overdue(redis_client, NAME)
    removal.begin()
    assert send(before) == send(time.monotonic()) == b"again"
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is None
    removal.end([NAME])
    assert send(before) == b"again"
    assert send(time.monotonic()) == b"ok"
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is not None
    events: Any = redis_client.xrange(redis_keys.events_key(job.id))
    assert [fields[b"event"] for _, fields in events].count(b"image") == 1


async def test_a_request_whose_input_image_is_being_removed_is_refused_for_now(
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


async def test_a_job_does_not_end_before_its_image_is_stored_again(
    queue: JobQueue, worker_queue: WorkerQueue, removal: ImageRemoval, redis_client: "Redis"
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    overdue(redis_client, NAME)
    removal.begin()

    def report_and_commit(*, stored: float) -> list[Any]:
        with redis_client.pipeline() as pipeline:
            news = Report("image", {}, NAME, image_began=stored, index=0)
            worker_queue.report(pipeline, [(job.id, "t1", news)])
            worker_queue.commit(job.id, "t1", "succeeded", pipeline=pipeline, images=[IMAGE])
            return list(pipeline.execute())[-2:]

    assert report_and_commit(stored=time.monotonic()) == [[b"again"], b"again"]
    assert (await queue.get(job.id)).status == "running"
    assert worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE]) == "again"
    removal.end([NAME])
    after = time.monotonic() + 1  # storing begins after the removal
    assert report_and_commit(stored=after) == [[b"ok"], b"succeeded"]
    assert (await queue.get(job.id)).images == (IMAGE,)
