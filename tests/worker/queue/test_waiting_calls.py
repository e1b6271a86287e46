"""Calls that wait for a job: one that is cut short leaves the job to the next call like it."""

from collections.abc import AsyncIterator

import pytest
from redis import Redis

from tests.support.requests import make_request
from tests.support.waiting import async_wait_until
from worker.job import Job
from worker.queue.client_index import WaitingCall
from worker.queue.job_queue import JobQueue
from worker.queue.layout.redis_keys import MAX_CALLS, calls_key, waiter_key
from worker.queue.worker_queue import WorkerQueue
from worker.settings import Settings


@pytest.fixture
async def other(redis_url: str, settings: Settings) -> AsyncIterator[JobQueue]:
    """The queue as another API process sees it."""
    opened = JobQueue(redis_url, settings)
    yield opened
    await opened.close()


async def wait(queue: JobQueue, like: str = "a", caller: str = "alice") -> tuple[Job, WaitingCall]:
    call = queue.waiting_call(caller, like, 600)
    return await queue.admit(make_request(), call=call), call


async def test_a_call_without_its_answer_leaves_its_job(queue: JobQueue, other: JobQueue) -> None:
    first, call = await wait(queue)
    assert (await wait(queue))[0].id != first.id, "the first call still waits"
    await call.end(is_served=False)
    again, call = await wait(other)
    assert (again.id, again.request) == (first.id, first.request)
    assert (await wait(queue))[0].id != first.id, "now this call waits"
    await call.end(is_served=False)
    assert (await wait(queue))[0].id == first.id


async def test_a_job_that_was_handed_over_is_not_found(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    first, call = await wait(queue)
    await call.end(is_served=True)
    await call.end(is_served=False)
    assert not redis_client.exists(calls_key("alice", "a"))
    assert (await wait(queue))[0].id != first.id


async def test_the_late_end_of_a_call_changes_nothing(queue: JobQueue) -> None:
    """The client has repeated its call, and this one has its answer."""
    first, call = await wait(queue)
    process = queue.waiting_call("alice", "a", 600).arguments[1]
    late = WaitingCall(queue.client, calls_key("alice", "a"), process, ttl_seconds=600)
    late.job_id = first.id
    await late.end(is_served=False)
    assert (await wait(queue))[0].id != first.id, "another call waits for the job"
    await call.end(is_served=True)
    late.job_id = first.id
    await late.end(is_served=False)
    assert (await wait(queue))[0].id != first.id


async def test_only_calls_of_the_same_kind_and_caller_find_a_job(queue: JobQueue) -> None:
    first, call = await wait(queue)
    await call.end(is_served=False)
    ids = {first.id}
    for like, caller in (("b", "alice"), ("a", "bob")):
        ids.add((await wait(queue, like, caller))[0].id)
    ids.add((await queue.admit(make_request())).id)
    assert len(ids) == 4


async def test_jobs_that_failed_are_not_found(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    first, call = await wait(queue)
    await call.end(is_served=False)
    await queue.cancel(first.id)
    second, call = await wait(queue)
    assert second.id != first.id
    await call.end(is_served=False)
    redis_client.delete(f"kirazuri:job:{second.id}")
    assert (await wait(queue))[0].id not in (first.id, second.id)


async def test_a_repeated_admission_finds_its_own_choice(queue: JobQueue) -> None:
    first, call = await wait(queue)
    await call.end(is_served=False)
    again = queue.waiting_call("alice", "a", 600)
    found = [await queue.admit(make_request(), call=again) for _ in range(2)]
    assert [job.id for job in found] == [first.id] * 2


async def test_calls_of_a_dead_process_have_ended(
    queue: JobQueue, other: JobQueue, redis_client: "Redis"
) -> None:
    first, call = await wait(queue)
    key = waiter_key(call.arguments[1])
    assert 0 < redis_client.pttl(key) <= 3000
    redis_client.delete(key)
    assert (await wait(other))[0].id == first.id


async def test_a_process_that_waits_says_that_it_is_alive(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    _, call = await wait(queue)
    key = waiter_key(call.arguments[1])
    redis_client.delete(key)

    async def is_alive() -> bool:
        await queue.wait(call.job_id or "", 0.01)
        return bool(redis_client.exists(key))

    await async_wait_until(is_alive)
    redis_client.delete(key)
    await async_wait_until(is_alive)
    await queue.close()
    assert not redis_client.exists(key)


async def test_what_is_remembered_expires(queue: JobQueue, redis_client: "Redis") -> None:
    _, call = await wait(queue)
    key = calls_key("alice", "a")
    assert 600 < redis_client.ttl(key) <= 4200
    await call.end(is_served=False)
    assert 590 < redis_client.ttl(key) <= 600


async def test_only_some_calls_are_recorded_at_once(queue: JobQueue, redis_client: "Redis") -> None:
    for _ in range(MAX_CALLS + 5):
        await wait(queue)
    assert redis_client.hlen(calls_key("alice", "a")) == MAX_CALLS
