"""Tests the outbox: written with the transition, leased to one sender at a time, bounded."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from tests.support.queue_steps import take as take_job
from tests.support.requests import make_request
from tests.support.waiting import async_wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.outbox import Delivery, Outbox, read_outbox_state
from worker.queue.worker_queue import WorkerQueue
from worker.redis_io.client import connect_async, disconnect
from worker.webhook import MAX_LOGGED_DELIVERIES, Webhook


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator["AsyncRedis"]:
    client = connect_async(redis_url)
    yield client
    await disconnect(client)


@pytest.fixture
def outbox(redis: "AsyncRedis") -> Outbox:
    return Outbox(redis, lease_seconds=3600)


async def admit(queue: JobQueue, *events: Any, host: str = "a.example") -> Job:
    webhook = Webhook(
        url=f"https://{host}/", host=host, events=events or ("cancelled",), base_url="http://own"
    )
    return await queue.admit(make_request(), webhook=webhook)


async def cancelled(queue: JobQueue, *, host: str = "a.example") -> Job:
    job = await admit(queue, host=host)
    return await queue.cancel(job.id)


def expire_lease(client: "Redis", delivery: Delivery) -> None:
    """End the lease of a sender, as time would."""
    client.zadd(redis_keys.OUTBOX, {delivery.id: time.time() - 1})


async def take(outbox: Outbox, most: int = 100, *, per_host: int = 100) -> list[Delivery]:
    return await outbox.take(most, per_host=per_host, in_flight={})


async def test_repeated_calls_leave_one_delivery(
    queue: JobQueue, outbox: Outbox, worker_queue: WorkerQueue
) -> None:
    """A client library may repeat a command whose reply was lost."""
    job = await admit(queue, "started", "succeeded")
    for _ in range(3):
        take_job(worker_queue, job.id, "token")
    for _ in range(3):
        assert worker_queue.commit(job.id, "token", "succeeded") == "succeeded"
    assert [delivery.event for delivery in await take(outbox)] == ["started", "succeeded"]


async def test_a_count_of_attempts_that_another_program_changed_begins_again(
    queue: JobQueue, outbox: Outbox, redis_client: "Redis"
) -> None:
    job = await cancelled(queue)
    (first,) = await take(outbox)
    redis_client.hset(f"{redis_keys.PREFIXES['delivery']}{first.id}", "delivery_attempt", "git")
    expire_lease(redis_client, first)
    (again,) = await take(outbox)
    assert (again.job_id, again.attempt) == (job.id, 1)


async def test_a_refused_transition_leaves_no_delivery(
    queue: JobQueue, outbox: Outbox, worker_queue: WorkerQueue
) -> None:
    job = await admit(queue, "succeeded", "cancelled")
    take_job(worker_queue, job.id, "token")
    assert worker_queue.commit(job.id, "another", "succeeded") == "lost"
    assert await take(outbox) == []
    await queue.cancel(job.id)
    assert worker_queue.commit(job.id, "token", "succeeded") == "cancelled"
    assert [delivery.event for delivery in await take(outbox)] == ["cancelled"]


async def test_a_delivery_belongs_to_one_sender_until_its_lease_ends(
    queue: JobQueue, outbox: Outbox, redis_client: "Redis"
) -> None:
    job = await cancelled(queue)
    (first,) = await take(outbox)
    assert first.job_id == job.id
    assert first.job().status == "cancelled"
    assert await take(outbox) == []
    expire_lease(redis_client, first)
    (second,) = await take(outbox)
    assert (second.id, second.attempt) == (first.id, 1)
    assert not await outbox.settle(first, "retried", status=500)
    assert not await outbox.settle(first, "given_up", status=500)
    assert await take(outbox) == []
    assert await outbox.settle(second, "retried", status=500)
    (third,) = await take(outbox)
    assert third.attempt == 2


async def test_a_late_success_ends_a_delivery_that_another_sender_has_taken(
    queue: JobQueue, outbox: Outbox, redis: "AsyncRedis", redis_client: "Redis"
) -> None:
    job = await cancelled(queue)
    (late,) = await take(outbox)
    expire_lease(redis_client, late)
    (other,) = await take(outbox)
    assert await outbox.settle(late, "delivered", status=200)
    assert not await outbox.settle(other, "retried", status=500)
    assert (await read_outbox_state(redis)).pending == 0
    webhook = (await queue.get(job.id)).webhook
    assert webhook
    assert [entry.status for entry in webhook.deliveries] == [200]


async def test_the_log_of_a_job_is_bounded(queue: JobQueue, outbox: Outbox) -> None:
    job = await cancelled(queue)
    for _ in range(MAX_LOGGED_DELIVERIES + 7):
        (delivery,) = await take(outbox)
        await outbox.settle(delivery, "retried", status=500, error="bad_status")
    webhook = (await queue.get(job.id)).webhook
    assert webhook
    attempts = [entry.attempt for entry in webhook.deliveries]
    assert attempts == list(range(8, MAX_LOGGED_DELIVERIES + 8))


async def test_a_delivery_outlives_its_job(
    queue: JobQueue, outbox: Outbox, redis_client: "Redis"
) -> None:
    job = await cancelled(queue)
    redis_client.delete(redis_keys.job_key(job.id))
    (delivery,) = await take(outbox)
    assert delivery.job().status == "cancelled"
    assert await outbox.settle(delivery, "delivered", status=200)
    assert redis_client.exists(redis_keys.job_key(job.id)) == 0


async def test_hosts_share_the_limit(queue: JobQueue, outbox: Outbox) -> None:
    for _ in range(5):
        await cancelled(queue, host="slow.example")
    other = await cancelled(queue, host="other.example")
    taken = await take(outbox, per_host=2)
    assert [delivery.host for delivery in taken] == ["slow.example"] * 2 + ["other.example"]
    assert taken[-1].job_id == other.id
    assert await outbox.take(9, per_host=2, in_flight={"slow.example": 2}) == []


async def test_a_long_backlog_of_one_host_delays_no_other(
    queue: JobQueue, outbox: Outbox, redis_client: "Redis"
) -> None:
    other = await cancelled(queue, host="other.example")
    with redis_client.pipeline() as pipeline:
        for number in range(2500):
            delivery = f"{other.id}-1-{number}"
            fields: dict[Any, Any] = {"webhook_host": "slow.example", "delivery_event": "cancelled"}
            pipeline.hset(f"kirazuri:delivery:{delivery}", mapping=fields)
            pipeline.zadd(redis_keys.OUTBOX, {delivery: number})
        pipeline.execute()
    busy = {"slow.example": 8}
    found = [await outbox.take(64, per_host=8, in_flight=busy) for _ in range(3)]
    assert [[delivery.host for delivery in part] for part in found] == [[], [], ["other.example"]]


async def test_no_more_is_taken_than_asked_for(queue: JobQueue, outbox: Outbox) -> None:
    jobs = [await cancelled(queue) for _ in range(4)]
    assert [delivery.job_id for delivery in await take(outbox, 3)] == [job.id for job in jobs[:3]]


async def test_deliveries_expire_after_a_week(
    queue: JobQueue, outbox: Outbox, redis: "AsyncRedis", redis_client: "Redis"
) -> None:
    await cancelled(queue)
    (key,) = redis_client.keys("kirazuri:delivery:*")
    assert 6.9 < redis_client.ttl(key) / 86_400 <= 7
    redis_client.delete(key)
    assert await take(outbox) == []
    assert (await read_outbox_state(redis)).pending == 0


async def test_the_state_of_the_outbox(
    queue: JobQueue, outbox: Outbox, redis: "AsyncRedis"
) -> None:
    assert (await read_outbox_state(redis)).overdue_seconds == 0
    await cancelled(queue)
    await cancelled(queue)

    async def is_overdue() -> bool:
        state = await read_outbox_state(redis)
        return state.pending == 2 and state.overdue_seconds > 0

    await async_wait_until(is_overdue)
    first, second = await take(outbox)
    await outbox.settle(first, "delivered", status=204)
    await outbox.settle(second, "retried", delay=60, status=500)
    state = await queue.state.outbox()
    assert (state.pending, state.overdue_seconds) == (1, 0)
    assert state.attempts == {"delivered": 1, "retried": 1, "given_up": 0, "gone": 0}
