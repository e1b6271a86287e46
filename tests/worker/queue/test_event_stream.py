"""Following a job: history, live, resumed, trimmed; many listeners on few connections."""

import asyncio
import time

import pytest
from redis import Redis

from tests.support.queue_steps import IMAGE, report, take
from tests.support.requests import make_request
from worker.errors import JobNotFound
from worker.job_events import JobEvent
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import Report, WorkerQueue


async def follow(queue: JobQueue, job_id: str, after: str | None = None) -> list[JobEvent]:
    return [event async for event in queue.events(job_id, after=after)]


def step(client: "Redis", worker_queue: WorkerQueue, job_id: str, number: int) -> None:
    data = {"step": number, "steps": 4, "eta_seconds": 1.0}
    news = Report("progress", data=data, fields={"step": number})
    report(client, worker_queue, job_id, "t1", news)


async def test_history_then_live_then_the_end(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    listener = asyncio.create_task(follow(queue, job.id))
    await asyncio.sleep(0.2)
    for number in (1, 2):
        step(redis_client, worker_queue, job.id, number)
    worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE])
    events = await asyncio.wait_for(listener, 3)
    names = ["queued", "started", "progress", "progress", "succeeded"]
    assert [event.event for event in events] == names
    assert events[1].data == {"attempt": 1, "worker": "w"}
    assert events[3].data == {"step": 2, "steps": 4, "eta_seconds": 1.0}
    assert events[4].data == {"images": [IMAGE.model_dump(mode="json")]}
    ids = [tuple(map(int, event.id.split("-"))) for event in events]
    assert ids == sorted(set(ids))


async def test_live_events_arrive_at_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    events = queue.events(job.id)
    for _ in range(2):
        await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    step(redis_client, worker_queue, job.id, 1)
    assert (await asyncio.wait_for(waiting, 3)).event == "progress"
    assert time.monotonic() - began < 1
    await events.aclose()


async def test_resuming_misses_and_repeats_nothing(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    step(redis_client, worker_queue, job.id, 1)
    worker_queue.commit(job.id, "t1", "failed")
    whole = await follow(queue, job.id)
    for seen in range(len(whole)):
        assert await follow(queue, job.id, after=whole[seen].id) == whole[seen + 1 :]


async def test_an_unknown_id_gets_a_gap_and_everything(queue: JobQueue) -> None:
    job = await queue.admit(make_request())
    await queue.cancel(job.id)
    for after in ("junk", "99999999999999-0", "9" * 30):
        names = [event.event for event in await follow(queue, job.id, after=after)]
        assert names == ["gap", "queued", "cancelled"]


async def test_a_trimmed_history_starts_with_the_current_state(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    first = (await anext(queue.events(job.id))).id
    for number in (1, 2, 3):
        step(redis_client, worker_queue, job.id, number)
    redis_client.xtrim(redis_keys.events_key(job.id), maxlen=1, approximate=False)
    events = queue.events(job.id)
    names = [(await anext(events)).event for _ in range(2)]
    assert names == ["started", "progress"]
    await events.aclose()
    resumed = queue.events(job.id, after=first)
    got = [await anext(resumed) for _ in range(3)]
    assert [event.event for event in got] == ["gap", "started", "progress"]
    assert got[0].id <= got[1].id < got[2].id
    await resumed.aclose()


async def test_the_end_is_told_from_the_record_when_the_events_are_gone(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE])
    whole = await follow(queue, job.id)
    redis_client.delete(redis_keys.events_key(job.id))
    assert await follow(queue, job.id) == [whole[-1]]
    assert await follow(queue, job.id, after=whole[-1].id) == []
    names = [event.event for event in await follow(queue, job.id, after=whole[0].id)]
    assert names == ["gap", "succeeded"]


async def test_nobody_follows_what_never_was(queue: JobQueue) -> None:
    with pytest.raises(JobNotFound):
        await follow(queue, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ")


async def test_many_listeners_share_few_connections(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(redis_client, worker_queue, job.id, "t1")
    listeners = [asyncio.create_task(follow(queue, job.id)) for _ in range(200)]
    await asyncio.sleep(0.5)
    assert len(redis_client.client_list()) <= 23  # 20 for commands, one reader, this client
    for number in (1, 2, 3):
        step(redis_client, worker_queue, job.id, number)
    worker_queue.commit(job.id, "t1", "cancelled")
    results = await asyncio.wait_for(asyncio.gather(*listeners), 20)
    names = ["queued", "started", "progress", "progress", "progress", "cancelled"]
    assert all([event.event for event in result] == names for result in results)


async def test_wait_returns_at_the_end_or_when_time_is_over(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    began = time.monotonic()
    assert (await queue.wait(job.id, 0.3)).status == "queued"
    assert 0.25 < time.monotonic() - began < 2
    take(redis_client, worker_queue, job.id, "t1")
    waiting = asyncio.create_task(queue.wait(job.id, 20))
    await asyncio.sleep(0.2)
    worker_queue.commit(job.id, "t1", "cancelled")
    assert (await asyncio.wait_for(waiting, 3)).status == "cancelled"
    assert (await queue.wait(job.id, 0)).status == "cancelled"
