"""Tests what the scripts count during the life of a job."""

import pytest
from redis import Redis

from tests.support.queue_steps import take
from tests.support.requests import make_request
from worker.job_errors import job_error
from worker.queue.counters import BUCKETS, FINISHED, RETRIES, Counters
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.queue.worker_queue import WorkerQueue


def set_age(client: "Redis", job_id: str, seconds: float) -> None:
    """Let the job appear to have been accepted this long ago."""
    now, micros = client.time()
    client.hset(redis_keys.job_key(job_id), "created", f"{now + micros / 1e6 - seconds:.6f}")


async def admit(queue: JobQueue, client: "Redis", *, seed: int, age: float) -> str:
    job = await queue.admit(make_request(seed=seed))
    set_age(client, job.id, age)
    return job.id


async def test_every_counter_starts_at_zero(queue: JobQueue) -> None:
    counters = await queue.state.counters()
    assert counters.accepted == 0
    assert counters.finished == dict.fromkeys(FINISHED, 0)
    assert set(counters.retries) == set(RETRIES)
    assert counters.failures["worker_lost"] == 0
    assert counters.waits.counts == tuple((bound, 0) for bound in (*BUCKETS, "+Inf"))
    assert counters.oldest_queued_seconds == 0


async def test_the_wait_of_a_job_is_counted_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job_id = await admit(queue, redis_client, seed=1, age=2000)
    take(worker_queue, job_id, "t1")
    worker_queue.release(job_id, "t1", "worker_stopped", is_free=True)
    take(worker_queue, job_id, "t2")
    worker_queue.release(job_id, "t2", "out_of_memory", is_free=False)
    take(worker_queue, job_id, "t3", lease=-1)  # its worker is dead at once
    take(worker_queue, job_id, "t4")
    counters = await queue.state.counters()
    waits = dict(counters.waits.counts)
    assert (waits["1800"], waits["+Inf"]) == (0, 1)
    assert counters.waits.total == pytest.approx(2000, abs=60)
    reasons = {reason: count for reason, count in counters.retries.items() if count}
    assert reasons == {"worker_stopped": 1, "out_of_memory": 1, "worker_lost": 1}


@pytest.mark.parametrize("age", [0.2, 8, 4000])
async def test_every_end_is_counted_with_its_duration(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, age: float
) -> None:
    good, bad, unwanted = [
        await admit(queue, redis_client, seed=seed, age=age) for seed in range(3)
    ]
    take(worker_queue, good, "t1")
    worker_queue.commit(good, "t1", "succeeded")
    take(worker_queue, bad, "t2")
    for _ in range(2):  # the second as after a lost reply
        worker_queue.commit(bad, "t2", "failed", error=job_error("non_finite", "NaN"))
    await queue.cancel(unwanted)
    counters = await queue.state.counters()
    assert counters.finished == dict.fromkeys(FINISHED, 1)
    assert {code: count for code, count in counters.failures.items() if count} == {"non_finite": 1}
    for durations in counters.durations.values():
        assert sum(count for bound, count in durations.counts if float(bound) < age) == 0
        assert durations.counts[-1] == ("+Inf", 1)
        assert durations.total == pytest.approx(age, abs=60)


async def test_a_job_that_killed_all_its_workers_is_counted(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job_id = await admit(queue, redis_client, seed=1, age=1)
    for attempt in range(4):
        take(worker_queue, job_id, f"t{attempt}", lease=-1)
    counters = await queue.state.counters()
    assert counters.failures["worker_lost"] == 1
    assert counters.retries["worker_lost"] == 2


async def test_the_oldest_waiting_job_shows_its_age(queue: JobQueue, redis_client: "Redis") -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    now, _ = redis_client.time()
    redis_client.zadd(redis_keys.QUEUED, {jobs[0].id: now - 100})
    counters: Counters = await queue.state.counters()
    assert counters.oldest_queued_seconds == pytest.approx(100, abs=60)
