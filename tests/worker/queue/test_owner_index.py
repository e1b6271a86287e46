"""Tests what an owner has: images, the list of jobs, and usage of the key's limits."""

import asyncio
import time
from typing import Any

import pytest
from redis import Redis
from ulid import ULID

from model.workload import megapixel_steps
from tests.support.queue_steps import report, take
from tests.support.requests import make_request
from worker.auth.api_keys import KeyLimits
from worker.errors import ImageExpired, ImageNotFound, QueueFull, QuotaSpent, TooManyJobs
from worker.job import Job, StoredImage
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.owner_index import OwnerIndex
from worker.queue.worker_queue import Report, WorkerQueue
from worker.settings import Settings

IMAGE_NAME = "a" * 40 + ".png"
COST = megapixel_steps(make_request())


def finish(
    worker_queue: WorkerQueue,
    job: Job,
    status: Any = "succeeded",
    name: str = "",
) -> None:
    take(worker_queue, job.id, "t")
    images = [
        StoredImage(
            url=f"/images/{name}", seed=1, width=64, height=64, format="png", bytes=1, sha256="0"
        )
    ]
    worker_queue.commit(job.id, "t", status, images=images if name else [])


async def check(owner: OwnerIndex, name: str = IMAGE_NAME) -> bool:
    try:
        await owner.check_image(name)
    except ImageNotFound:
        return False
    return True


# -- images ----------------------------------------------------------------------------------


async def test_an_image_belongs_to_all_owners_who_made_it(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    alice, bob = queue.owned_by("alice"), queue.owned_by("bob")
    finish(worker_queue, await alice.admit(make_request()), name=IMAGE_NAME)
    assert await check(alice.owner_index)
    assert not await check(bob.owner_index)
    assert not await check(alice.owner_index, "b" * 40 + ".png")
    with pytest.raises(ImageNotFound, match="names are 40 hex digits"):
        await bob.owner_index.check_image("../secret")
    finish(worker_queue, await bob.admit(make_request()), name=IMAGE_NAME)
    assert await check(bob.owner_index)


async def test_an_announced_image_can_be_fetched_before_the_job_ends(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.owned_by("alice").admit(make_request())
    take(worker_queue, job.id, "t")
    assert report(worker_queue, job.id, "t", Report(event="image", image=IMAGE_NAME)) == b"ok"
    assert await check(queue.owned_by("alice").owner_index)
    assert not await check(queue.owned_by("bob").owner_index)


async def test_an_image_that_a_job_starts_from_is_visible_to_its_owner(queue: JobQueue) -> None:
    request = make_request(init_image=IMAGE_NAME, strength=0.5)
    await queue.owned_by("alice").admit(request)
    assert await check(queue.owned_by("alice").owner_index)
    assert not await check(queue.owned_by("bob").owner_index)


async def test_a_refused_job_makes_its_client_no_owner(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    full = JobQueue(redis_url, settings.model_copy(update={"max_queue": 0}))
    with pytest.raises(QueueFull):
        await full.owned_by("alice").admit(make_request(init_image=IMAGE_NAME, strength=0.5))
    assert not await check(full.owned_by("alice").owner_index)
    assert redis_client.keys("kirazuri:owners:*") == []
    await full.close()


async def test_an_image_expires_for_each_owner_separately(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    owners = {"alice": time.time() - 1, "bob": time.time() + 60}
    redis_client.zadd(redis_keys.owners_key(IMAGE_NAME), owners)
    with pytest.raises(ImageExpired):
        await queue.owned_by("alice").owner_index.check_image(IMAGE_NAME)
    assert await check(queue.owned_by("bob").owner_index)


async def test_owners_are_kept_a_day_longer_than_the_image(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, settings: Settings
) -> None:
    finish(worker_queue, await queue.owned_by("a").admit(make_request()), name=IMAGE_NAME)
    left: Any = redis_client.ttl(redis_keys.owners_key(IMAGE_NAME))
    assert 86_400 < left <= 86_400 + settings.result_ttl_seconds + 1


# -- the list of jobs ------------------------------------------------------------------------


async def test_jobs_are_listed_newest_first_in_pages(queue: JobQueue) -> None:
    alice = queue.owned_by("alice")
    made = [(await alice.admit(make_request(seed=seed))).id for seed in range(5)]
    await queue.owned_by("bob").admit(make_request())
    expected = sorted(made, reverse=True)
    seen: list[str] = []
    cursor = None
    for size in (2, 2, 1):
        jobs, cursor = await alice.jobs(limit=2, after=cursor)
        assert len(jobs) == size
        seen += [job.id for job in jobs]
    assert seen == expected
    assert cursor is None
    jobs, cursor = await alice.jobs(limit=5)
    assert ([job.id for job in jobs], cursor) == (expected, None)
    assert await queue.owned_by("carol").jobs() == ([], None)
    assert await alice.jobs(after="0" * 26) == ([], None)


async def test_jobs_of_one_status(queue: JobQueue, worker_queue: WorkerQueue) -> None:
    made = [await queue.owned_by("a").admit(make_request(seed=seed)) for seed in range(4)]
    made.sort(key=lambda job: job.id, reverse=True)
    finish(worker_queue, made[1])
    take(worker_queue, made[2].id, "t")
    for status, wanted in (
        ("queued", [made[0].id, made[3].id]),
        ("running", [made[2].id]),
        ("succeeded", [made[1].id]),
        ("failed", []),
    ):
        jobs, cursor = await queue.owned_by("a").jobs(status=status)  # type: ignore[arg-type]
        assert ([job.id for job in jobs], cursor) == (wanted, None), status


async def test_a_rare_status_among_many_jobs_takes_several_pages(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    now = int(time.time() * 1000)
    ids = [str(ULID.from_timestamp((now + number) / 1000)) for number in range(2500)]
    with redis_client.pipeline() as pipeline:
        pipeline.zadd(redis_keys.jobs_key("a"), dict.fromkeys(ids, 0))
        for number, job_id in enumerate(ids):
            status = "failed" if number in (3, 1200, 2499) else "succeeded"
            pipeline.hset(redis_keys.job_key(job_id), "status", status)
        pipeline.execute()
    found, cursor, pages = [], None, 0
    owner_index = queue.owned_by("a").owner_index
    while pages == 0 or cursor:
        page = await owner_index.jobs(status="failed", limit=20, after=cursor)
        found += page.job_ids
        cursor, pages = page.next_cursor, pages + 1
    assert found == [ids[2499], ids[1200], ids[3]]
    assert pages == 3


async def test_expired_jobs_leave_the_list(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, settings: Settings
) -> None:
    alice = queue.owned_by("alice")
    expired = [await alice.admit(make_request(seed=seed)) for seed in range(12)]
    for job in expired:
        redis_client.delete(redis_keys.job_key(job.id))
    kept = []
    for seed in range(4):
        kept.append((await alice.admit(make_request(seed=seed))).id)
    members: Any = redis_client.zrange(redis_keys.jobs_key("alice"), 0, -1)
    assert sorted(member.decode() for member in members) == sorted(kept)


async def test_the_list_expires_with_the_last_job(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, settings: Settings
) -> None:
    alice = queue.owned_by("alice")
    first, second = await alice.admit(make_request()), await alice.admit(make_request(seed=2))
    finish(worker_queue, first)
    assert redis_client.ttl(redis_keys.jobs_key("alice")) == -1, "one has not ended"
    finish(worker_queue, second)
    left: Any = redis_client.ttl(redis_keys.jobs_key("alice"))
    assert 0 < left <= settings.result_ttl_seconds
    assert redis_client.exists(redis_keys.unfinished_key("alice")) == 0
    third = await alice.admit(make_request(seed=3))
    assert redis_client.ttl(redis_keys.jobs_key("alice")) == -1
    await alice.cancel(third.id)
    assert redis_client.ttl(redis_keys.jobs_key("alice")) > 0


# -- limits ----------------------------------------------------------------------------------


async def test_the_limit_of_unfinished_jobs_holds_under_concurrency(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    limits = KeyLimits(concurrency=5)
    alice = queue.owned_by("alice")
    outcomes = await asyncio.gather(
        *(alice.admit(make_request(seed=seed), limits=limits) for seed in range(60)),
        return_exceptions=True,
    )
    admitted = [job for job in outcomes if isinstance(job, Job)]
    assert len(admitted) == 5
    assert sum(isinstance(outcome, TooManyJobs) for outcome in outcomes) == 55
    assert (await alice.owner_index.usage()).unfinished == 5
    await queue.owned_by("bob").admit(make_request(), limits=limits)

    finish(worker_queue, admitted[0])
    await alice.cancel(admitted[1].id)
    outcomes = await asyncio.gather(
        *(alice.admit(make_request(seed=seed), limits=limits) for seed in range(9)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 2


async def test_a_repeated_submission_takes_no_second_place(queue: JobQueue) -> None:
    alice, limits = queue.owned_by("alice"), KeyLimits(concurrency=1, quota=COST)
    first = await alice.admit(make_request(), idempotency_key="k", fingerprint="f", limits=limits)
    again = await alice.admit(make_request(), idempotency_key="k", fingerprint="f", limits=limits)
    assert again.id == first.id
    usage = await alice.owner_index.usage()
    assert usage.unfinished == 1
    assert usage.spent == pytest.approx(COST)


async def test_a_lost_job_frees_its_place(queue: JobQueue, redis_client: "Redis") -> None:
    alice, limits = queue.owned_by("alice"), KeyLimits(concurrency=1)
    lost = await alice.admit(make_request(), limits=limits)
    redis_client.delete(redis_keys.job_key(lost.id))
    await alice.admit(make_request(), limits=limits)
    with pytest.raises(TooManyJobs, match="limit of 1"):
        await alice.admit(make_request(), limits=limits)


async def test_the_quota_is_held_however_many_come_at_once(queue: JobQueue) -> None:
    alice, limits = queue.owned_by("alice"), KeyLimits(quota=3.5 * COST)
    outcomes = await asyncio.gather(
        *(alice.admit(make_request(seed=seed), limits=limits) for seed in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 3
    refusals = [outcome for outcome in outcomes if isinstance(outcome, QuotaSpent)]
    assert len(refusals) == 17
    assert 0 < refusals[0].retry_after <= 86_400
    assert (await alice.owner_index.usage()).spent == pytest.approx(3 * COST)


async def test_failed_and_unstarted_jobs_cost_no_quota(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    alice, limits = queue.owned_by("alice"), KeyLimits(quota=10 * COST)

    async def spent() -> float:
        return round((await alice.owner_index.usage()).spent / COST, 3)

    made = [await alice.admit(make_request(seed=seed), limits=limits) for seed in range(4)]
    assert await spent() == 4
    await alice.cancel(made[0].id)
    assert await spent() == 3, "it had not begun"
    finish(worker_queue, made[1], "failed")
    assert await spent() == 2, "it failed"
    take(worker_queue, made[2].id, "t")
    await alice.cancel(made[2].id)
    worker_queue.commit(made[2].id, "t", "cancelled")
    assert await spent() == 2, "it had begun"
    finish(worker_queue, made[3])
    assert await spent() == 2


async def test_without_a_quota_nothing_is_counted(queue: JobQueue, redis_client: "Redis") -> None:
    await queue.owned_by("alice").admit(make_request())
    assert redis_client.keys("kirazuri:spent:*") == []
