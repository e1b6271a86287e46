"""Deleting an image: what its owner, other owners, jobs and workers see."""

import time
from typing import Any

import pytest
from redis import Redis

from tests.support.queue_steps import IMAGE, report, take
from tests.support.requests import make_request
from worker.errors import ImageDeleted, ImageExpired, ImageNotFound
from worker.job import Job
from worker.queue.image_removal import ImageRemoval
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import Report, WorkerQueue

NAME = IMAGE.name


def store(worker_queue: WorkerQueue, job: Job) -> None:
    """Report the image, as a worker does once its bytes are stored."""
    take(worker_queue, job.id, "t")
    news = Report("image", IMAGE.model_dump(mode="json"), NAME, image_began=time.monotonic())
    assert report(worker_queue, job.id, "t", news) == b"ok"


def make(worker_queue: WorkerQueue, job: Job) -> None:
    store(worker_queue, job)
    worker_queue.commit(job.id, "t", "succeeded", images=[IMAGE])


async def deleted(queue: JobQueue, job: Job) -> bool:
    (image,) = (await queue.get(job.id)).images
    return image.deleted


async def test_only_its_owner_deletes_an_image_and_every_job_of_theirs_says_so(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    alice, bob = queue.owned_by("alice"), queue.owned_by("bob")
    jobs = [await alice.admit(make_request(seed=seed)) for seed in (1, 2)]
    for job in jobs:
        make(worker_queue, job)
    with pytest.raises(ImageNotFound):
        await bob.owner_index.delete_image(NAME)
    with pytest.raises(ImageNotFound):
        await alice.owner_index.delete_image("../secret")
    assert await alice.owner_index.delete_image(NAME)
    with pytest.raises(ImageDeleted):
        await alice.owner_index.check_image(NAME)
    assert [await deleted(alice, job) for job in jobs] == [True, True]
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is None
    assert await alice.owner_index.delete_image(NAME)  # the reply to the first call was lost
    await alice.owner_index.end_removal(NAME)
    assert not await alice.owner_index.delete_image(NAME)


async def test_the_bytes_stay_while_another_owner_has_them(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    alice, bob = queue.owned_by("alice"), queue.owned_by("bob")
    for owner in (alice, bob):
        make(worker_queue, await owner.admit(make_request()))
    assert not await alice.owner_index.delete_image(NAME)
    assert redis_client.zscore(redis_keys.IMAGES, NAME) is not None
    await bob.owner_index.check_image(NAME)
    with pytest.raises(ImageDeleted):
        await alice.owner_index.check_image(NAME)
    assert await bob.owner_index.delete_image(NAME)


async def test_an_image_made_again_is_there_again(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    alice = queue.owned_by("alice")
    first = await alice.admit(make_request())
    make(worker_queue, first)
    assert await alice.owner_index.delete_image(NAME)
    await alice.owner_index.end_removal(NAME)
    second = await alice.admit(make_request())
    make(worker_queue, second)
    await alice.owner_index.check_image(NAME)
    assert [await deleted(alice, job) for job in (first, second)] == [False, False]


async def test_an_image_deleted_before_its_job_ends_stays_deleted(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    alice = queue.owned_by("alice")
    job = await alice.admit(make_request())
    store(worker_queue, job)
    assert await alice.owner_index.delete_image(NAME)
    worker_queue.commit(job.id, "t", "succeeded", images=[IMAGE])
    with pytest.raises(ImageDeleted):
        await alice.owner_index.check_image(NAME)
    assert await deleted(alice, job)


async def test_an_input_deleted_while_its_job_waits_stays_deleted(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    alice = queue.owned_by("alice")
    job = await alice.admit(make_request(init_image=NAME))
    assert await alice.owner_index.delete_image(NAME)
    take(worker_queue, job.id, "t")
    worker_queue.commit(job.id, "t", "failed")
    with pytest.raises(ImageDeleted):
        await alice.owner_index.check_image(NAME)


async def test_an_interrupted_deletion_is_finished_by_a_worker(
    queue: JobQueue, worker_queue: WorkerQueue, removal: ImageRemoval, redis_client: "Redis"
) -> None:
    alice = queue.owned_by("alice")
    make(worker_queue, await alice.admit(make_request()))
    assert await alice.owner_index.delete_image(NAME)
    assert removal.begin() == []
    redis_client.zincrby(redis_keys.REMOVALS, -61, NAME)
    assert removal.begin() == [NAME]


async def test_an_expired_image_cannot_be_deleted(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    alice = queue.owned_by("alice")
    make(worker_queue, await alice.admit(make_request()))
    past: Any = {"alice": time.time() - 1}
    redis_client.zadd(redis_keys.owners_key(NAME), past)
    with pytest.raises(ImageExpired, match="its job expired"):
        await alice.owner_index.delete_image(NAME)
