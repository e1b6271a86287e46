"""Tests reading jobs and workers, and the behaviour while Redis is away."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from redis import Redis
from ulid import ULID

from model.workload import megapixel_steps
from tests.support.queue_steps import follow_events, maintain, status, take
from tests.support.requests import make_request
from worker.errors import JobExpired, JobNotFound, QueueUnavailable
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import WorkerQueue
from worker.redis_io import server as redis_server
from worker.settings import Settings


@pytest.mark.parametrize("job_id", ["", "x", "../etc", "0" * 25, "I" * 26, "0" * 26 + "\n"])
async def test_a_malformed_id_is_not_found(queue: JobQueue, job_id: str) -> None:
    for call in (queue.get, queue.cancel):
        with pytest.raises(JobNotFound):
            await call(job_id)


async def test_an_unknown_id_is_expired_only_when_it_is_old(queue: JobQueue) -> None:
    with pytest.raises(JobNotFound):
        await queue.get(str(ULID()))
    old = str(ULID.from_timestamp(time.time() - 86_401))
    for call in (queue.get, queue.cancel):
        with pytest.raises(JobExpired):
            await call(old)


async def test_workers_are_those_heard_from_of_late(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    assert await queue.state.workers() == []
    began = time.time()
    with redis_client.pipeline() as pipeline:
        for name in ("b", "a"):
            worker_queue.heartbeat(pipeline, status(name))
        pipeline.execute()
    assert [worker.name for worker in await queue.state.workers()] == ["a", "b"]
    ends: Any = redis_client.pexpiretime(redis_keys.worker_key("a"))
    assert began + 14.9 < ends / 1000 <= time.time() + 15
    redis_client.delete(redis_keys.worker_key("a"))
    assert [worker.name for worker in await queue.state.workers()] == ["b"]
    maintain(worker_queue)
    assert redis_client.smembers(redis_keys.WORKERS) == {b"b"}


async def test_a_queued_job_has_an_estimate_once_the_pace_is_known(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    one = megapixel_steps(make_request())
    first, second = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    assert first.eta_seconds is None
    with redis_client.pipeline() as pipeline:
        worker_queue.heartbeat(pipeline, status("w", pace=one / 2))
        pipeline.execute()
    redis_client.set(redis_keys.MEAN_COST, one)
    queue.state._throughput_read_at = None
    assert (await queue.get(first.id)).eta_seconds == pytest.approx(2, abs=0.1)
    assert (await queue.get(second.id)).eta_seconds == pytest.approx(4, abs=0.1)


async def test_every_end_is_counted(queue: JobQueue, worker_queue: WorkerQueue) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    await queue.cancel(jobs[0].id)
    take(worker_queue, jobs[1].id, "t1")
    worker_queue.commit(jobs[1].id, "t1", "succeeded")
    take(worker_queue, jobs[2].id, "t2")
    worker_queue.release(jobs[2].id, "t2", "x", is_free=False)
    take(worker_queue, jobs[2].id, "t3")
    worker_queue.commit(jobs[2].id, "t3", "failed")
    counters = await queue.state.counters()
    assert counters.accepted == 3
    assert counters.finished == {"succeeded": 1, "failed": 1, "cancelled": 1}
    assert sum(counters.retries.values()) == 1


async def test_everything_says_unavailable_while_redis_is_away(settings: Settings) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        job = await queue.admit(make_request())
        server.process.kill()
        server.process.wait()
        for call in (
            queue.ping(),
            queue.admit(make_request()),
            queue.get(job.id),
            queue.cancel(job.id),
            queue.wait(job.id, 1),
            queue.state.depth(),
            queue.state.workers(),
            queue.state.counters(),
        ):
            with pytest.raises(QueueUnavailable):
                await call
        server = redis_server.start(Path(folder))
        assert (await queue.get(job.id)).id == job.id  # kill -9 lost nothing
        await queue.close()
        server.stop()


async def test_a_hanging_redis_never_blocks_the_loop(settings: Settings) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        await queue.ping()
        server.process.send_signal(19)  # SIGSTOP
        try:
            admission = asyncio.create_task(queue.admit(make_request()))
            ticks = 0
            while not admission.done():
                await asyncio.sleep(0.01)
                ticks += 1
            with pytest.raises(QueueUnavailable):
                await admission
            assert ticks > 10
        finally:
            server.process.send_signal(18)  # SIGCONT
        await queue.ping()
        await queue.close()
        server.stop()


async def test_a_full_redis_refuses_jobs_and_goes_on_reading(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    job = await queue.admit(make_request())
    redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueUnavailable):
            await queue.admit(make_request())
        assert (await queue.get(job.id)).status == "queued"
    finally:
        redis_client.config_set("maxmemory", "0")


async def test_jobs_of_others_are_not_there(queue: JobQueue) -> None:
    mine, yours = queue.owned_by("mine"), queue.owned_by("yours")
    job = await mine.admit(make_request(), idempotency_key="k", fingerprint="f")
    assert (await mine.get(job.id)).id == job.id
    for attempt in (yours.get, yours.cancel, yours.replay, queue.owned_by("").get):
        with pytest.raises(JobNotFound):
            await attempt(job.id)
    with pytest.raises(JobNotFound):
        await anext(follow_events(yours, job.id))
    with pytest.raises(JobNotFound):
        await yours.wait(job.id, 1)
    assert (await queue.get(job.id)).status == "queued"  # the operator's view
    other = await yours.admit(make_request(), idempotency_key="k", fingerprint="another")
    assert other.id != job.id
    again = await mine.admit(make_request(), idempotency_key="k", fingerprint="f")
    assert again.id == job.id


async def test_a_page_of_jobs_is_what_each_of_them_is(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    mine = queue.owned_by("mine")
    jobs = [await mine.admit(make_request(seed=seed)) for seed in range(4)]
    overdue = await mine.admit(make_request(), cancel_after=1)
    await queue.owned_by("yours").admit(make_request())
    take(worker_queue, jobs[0].id, "token")
    redis_client.hset(redis_keys.job_key(overdue.id), "deadline", time.time() - 60)
    page, following = await mine.jobs()
    assert following is None
    assert [job.id for job in page] == [overdue.id, *(job.id for job in reversed(jobs))]
    assert [job.status for job in page] == ["cancelled", *["queued"] * 3, "running"]
    assert page == [await mine.get(job.id) for job in page]
    # The other owner, who has had no turn yet, comes first.
    assert [job.queue_position for job in page[1:4]] == [3, 2, 1]
