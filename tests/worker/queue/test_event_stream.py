"""Tests following a job: past, live, resumed and trimmed events; many listeners."""

import asyncio
import time
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.queue_steps import IMAGE, follow_events, report, take
from tests.support.requests import make_request
from tests.support.waiting import async_wait_until
from worker.errors import JobNotFound
from worker.job_events import JobEvent
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import Report, WorkerQueue
from worker.telemetry.background import FAILURES


async def follow(queue: JobQueue, job_id: str, after: str | None = None) -> list[JobEvent]:
    return [event async for event in follow_events(queue, job_id, after=after)]


def step(worker_queue: WorkerQueue, job_id: str, number: int) -> None:
    data = {"step": number, "steps": 4, "eta_seconds": 1.0}
    news = Report("progress", data=data, fields={"step": number})
    report(worker_queue, job_id, "t1", news)


async def test_history_then_live_then_the_end(queue: JobQueue, worker_queue: WorkerQueue) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    events: list[JobEvent] = []

    async def listen() -> None:
        async for event in follow_events(queue, job.id):
            events.append(event)

    listener = asyncio.create_task(listen())
    await async_wait_until(lambda: len(events) == 2)
    for number in (1, 2):
        step(worker_queue, job.id, number)
    worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE])
    await asyncio.wait_for(listener, 60)
    names = ["queued", "started", "progress", "progress", "succeeded"]
    assert [event.event for event in events] == names
    assert events[1].data == {"attempt": 1, "worker": "w"}
    assert events[3].data == {"step": 2, "steps": 4, "eta_seconds": 1.0}
    assert events[4].data == {"images": [IMAGE.model_dump(mode="json")]}
    ids = [tuple(map(int, event.id.split("-"))) for event in events]
    assert ids == sorted(set(ids))


async def test_a_wake_up_brings_live_events(
    queue: JobQueue,
    worker_queue: WorkerQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.queue.job_queue._POLL_SECONDS", 3600)
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    events = follow_events(queue, job.id)
    for _ in range(2):
        await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.1)
    step(worker_queue, job.id, 1)
    assert (await asyncio.wait_for(waiting, 60)).event == "progress"
    await events.aclose()


async def test_resuming_skips_and_repeats_no_event(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    step(worker_queue, job.id, 1)
    worker_queue.commit(job.id, "t1", "failed")
    whole = await follow(queue, job.id)
    for seen in range(len(whole)):
        assert await follow(queue, job.id, after=whole[seen].id) == whole[seen + 1 :]


async def test_an_unknown_id_gets_a_gap_and_all_events(queue: JobQueue) -> None:
    job = await queue.admit(make_request())
    await queue.cancel(job.id)
    for after in ("junk", "99999999999999-0", "9" * 30):
        names = [event.event for event in await follow(queue, job.id, after=after)]
        assert names == ["gap", "queued", "cancelled"]


async def test_a_trimmed_history_starts_with_the_current_state(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    first = (await anext(follow_events(queue, job.id))).id
    for number in (1, 2, 3):
        step(worker_queue, job.id, number)
    redis_client.xtrim(redis_keys.events_key(job.id), maxlen=1, approximate=False)
    events = follow_events(queue, job.id)
    names = [(await anext(events)).event for _ in range(2)]
    assert names == ["started", "progress"]
    await events.aclose()
    resumed = follow_events(queue, job.id, after=first)
    got = [await anext(resumed) for _ in range(3)]
    assert [event.event for event in got] == ["gap", "started", "progress"]
    assert got[0].id <= got[1].id < got[2].id
    await resumed.aclose()


async def test_the_record_gives_the_end_when_the_events_have_expired(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE])
    whole = await follow(queue, job.id)
    redis_client.delete(redis_keys.events_key(job.id))
    assert await follow(queue, job.id) == [whole[-1]]
    assert await follow(queue, job.id, after=whole[-1].id) == []
    names = [event.event for event in await follow(queue, job.id, after=whole[0].id)]
    assert names == ["gap", "succeeded"]


async def test_an_unknown_job_cannot_be_followed(queue: JobQueue) -> None:
    with pytest.raises(JobNotFound):
        await follow(queue, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ")


async def test_many_listeners_share_few_connections(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    names: list[list[str]] = [[] for _ in range(200)]

    async def listen(heard: list[str]) -> None:
        async for event in follow_events(queue, job.id):
            heard.append(event.event)

    listeners = [asyncio.create_task(listen(heard)) for heard in names]
    await async_wait_until(lambda: all(len(heard) == 2 for heard in names))
    assert len(redis_client.client_list()) <= 23  # 20 for commands, two for events, this client
    for number in (1, 2, 3):
        step(worker_queue, job.id, number)
    worker_queue.commit(job.id, "t1", "cancelled")
    await asyncio.wait_for(asyncio.gather(*listeners), 60)
    expected = ["queued", "started", "progress", "progress", "progress", "cancelled"]
    assert all(heard == expected for heard in names)


async def test_an_unreadable_wake_up_stops_no_listener(
    queue: JobQueue,
    worker_queue: WorkerQueue,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.queue.job_queue._POLL_SECONDS", 3600)
    monkeypatch.setattr("worker.telemetry.background.FIRST_PAUSE_SECONDS", 0.01)
    before = FAILURES["wake"]
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    waiting = asyncio.create_task(queue.wait(job.id, 3600))
    await async_wait_until(lambda: queue._wakeups._is_reading.is_set())
    redis_client.xadd(redis_keys.WAKE, {"planet": "mars"})
    await async_wait_until(lambda: FAILURES["wake"] == before + 1)
    worker_queue.commit(job.id, "t1", "cancelled")
    assert (await asyncio.wait_for(waiting, 60)).status == "cancelled"


async def test_an_unreadable_event_breaks_only_its_own_stream(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    broken, whole = [await queue.admit(make_request(seed=seed)) for seed in range(2)]
    redis_client.xadd(redis_keys.events_key(broken.id), {"event": "progress", "data": b"\xff"})
    for _ in range(2):
        found = await asyncio.gather(
            queue.has_seen_all(broken.id, after=None),
            queue.has_seen_all(whole.id, after=None),
            return_exceptions=True,
        )
        assert isinstance(found[0], UnicodeDecodeError)
        assert found[1] is False


async def test_wait_returns_when_the_time_is_over(queue: JobQueue) -> None:
    job = await queue.admit(make_request())
    began = time.monotonic()
    assert (await queue.wait(job.id, 0.3)).status == "queued"
    assert time.monotonic() - began > 0.25


async def test_wait_returns_at_the_end_of_the_job(
    queue: JobQueue,
    worker_queue: WorkerQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.queue.job_queue._POLL_SECONDS", 3600)
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    waiting = asyncio.create_task(queue.wait(job.id, 3600))
    await async_wait_until(lambda: queue._wakeups._listeners)
    worker_queue.commit(job.id, "t1", "cancelled")
    assert (await asyncio.wait_for(waiting, 60)).status == "cancelled"
    assert (await queue.wait(job.id, 0)).status == "cancelled"


async def test_pages_of_many_jobs_are_read_by_one_call_and_one_outage_fails_them_all(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(20)]
    reader = queue._event_reader
    read_events, calls = reader._read_events, []

    async def watched(*args: Any) -> Any:
        calls.append(args)
        return await read_events(*args)

    async def refused(*args: Any) -> Any:
        calls.append(args)
        raise RedisConnectionError("refused")

    monkeypatch.setattr(reader, "_read_events", watched)
    pages = await asyncio.gather(*(reader.read(job.id, None) for job in jobs))
    assert [[event.event for event in page.events] for page in pages if page] == [["queued"]] * 20
    assert len(calls) == 1
    monkeypatch.setattr(reader, "_read_events", refused)
    read = [reader.read(job.id, None) for job in jobs]
    errors = await asyncio.gather(*read, return_exceptions=True)
    assert {type(error) for error in errors} == {RedisConnectionError}
    assert len(calls) == 2


async def test_events_that_are_there_come_as_one_page(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    step(worker_queue, job.id, 1)
    worker_queue.commit(job.id, "t1", "cancelled")
    pages = [page async for page in queue.event_pages(job.id)]
    assert [[event.event for event in page] for page in pages] == [
        ["queued", "started", "progress", "cancelled"]
    ]


async def test_repeated_reports_send_each_step_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    news = [
        report
        for step in (1, 2, 3)
        for report in (
            Report("progress", {"step": step}, fields={"step": step}),
            *(Report("preview", {"step": step, "index": index}) for index in (0, 1)),
        )
    ]
    for token in ("t1", "t2"):  # each attempt begins again
        take(worker_queue, job.id, token)
        for _ in range(2):  # the second as after a lost reply
            with redis_client.pipeline(transaction=False) as pipeline:
                worker_queue.report(pipeline, [(job.id, token, report) for report in news])
                assert pipeline.execute()[-1] == [b"ok"] * len(news)
        worker_queue.release(job.id, token, "engine_error", is_free=False)
    take(worker_queue, job.id, "t3")
    worker_queue.commit(job.id, "t3", "succeeded", images=[IMAGE])
    events = [event async for event in follow_events(queue, job.id)]
    assert [
        (event.event, event.data) for event in events if event.event in ("progress", "preview")
    ] == [(report.event, report.data) for report in news] * 2
