"""What the scripts count on the way of a job."""

import pytest
from redis import Redis

from tests.support.queue_steps import take
from tests.support.requests import make_request
from worker.job_errors import job_error
from worker.queue import record
from worker.queue.counters import BOUNDS, FINISHED, RETRIES, Counters
from worker.queue.job_queue import JobQueue
from worker.queue.worker_queue import WorkerQueue


def set_age(client: "Redis", job_id: str, seconds: float) -> None:
    """Make it look as if the job had been accepted so long ago."""
    now, micros = client.time()
    client.hset(record.job_key(job_id), "created", f"{now + micros / 1e6 - seconds:.6f}")


async def one_more(queue: JobQueue, client: "Redis", *, seed: int, age: float) -> str:
    job = await queue.admit(make_request(seed=seed))
    set_age(client, job.id, age)
    return job.id


async def test_all_is_there_before_anything_happened(queue: JobQueue) -> None:
    tallies = await queue.tallies()
    assert tallies.accepted == 0
    assert tallies.finished == dict.fromkeys(FINISHED, 0)
    assert set(tallies.retries) == set(RETRIES)
    assert tallies.failures["worker_lost"] == 0
    assert tallies.waits.counts == tuple((bound, 0) for bound in (*BOUNDS, "+Inf"))
    assert tallies.oldest_seconds == 0


async def test_a_wait_is_counted_once_whatever_becomes_of_the_job(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerQueue
) -> None:
    job_id = await one_more(queue, redis_client, seed=1, age=45)
    take(redis_client, ledger, job_id, "t1")
    ledger.release(job_id, "t1", "worker_stopped", is_free=True)
    take(redis_client, ledger, job_id, "t2")
    ledger.release(job_id, "t2", "out_of_memory", is_free=False)
    take(redis_client, ledger, job_id, "t3", lease=-1)  # its worker is dead at once
    take(redis_client, ledger, job_id, "t4")
    tallies = await queue.tallies()
    assert dict(tallies.waits.counts)["30"] == 0
    assert dict(tallies.waits.counts)["60"] == dict(tallies.waits.counts)["+Inf"] == 1
    assert tallies.waits.total == pytest.approx(45, abs=5)
    reasons = {reason: count for reason, count in tallies.retries.items() if count}
    assert reasons == {"worker_stopped": 1, "out_of_memory": 1, "worker_lost": 1}


@pytest.mark.parametrize("age", [0.2, 8, 4000])
async def test_every_end_is_counted_with_its_duration(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerQueue, age: float
) -> None:
    good, bad, unwanted = [
        await one_more(queue, redis_client, seed=seed, age=age) for seed in range(3)
    ]
    take(redis_client, ledger, good, "t1")
    ledger.commit(good, "t1", "succeeded")
    take(redis_client, ledger, bad, "t2")
    ledger.commit(bad, "t2", "failed", error=job_error("non_finite", "NaN"))
    ledger.commit(bad, "t2", "failed", error=job_error("non_finite", "NaN"))  # its reply was lost
    await queue.cancel(unwanted)
    tallies = await queue.tallies()
    assert tallies.finished == dict.fromkeys(FINISHED, 1)
    assert {code: count for code, count in tallies.failures.items() if count} == {"non_finite": 1}
    for spread in tallies.durations.values():
        assert [count for bound, count in spread.counts if float(bound) < age] == [0] * sum(
            float(bound) < age for bound in BOUNDS
        )
        assert spread.counts[-1] == ("+Inf", 1)
        assert spread.total == pytest.approx(age, abs=5)


async def test_a_job_that_killed_all_its_workers_is_counted(
    queue: JobQueue, redis_client: "Redis", ledger: WorkerQueue
) -> None:
    job_id = await one_more(queue, redis_client, seed=1, age=1)
    for attempt in range(4):
        take(redis_client, ledger, job_id, f"t{attempt}", lease=-1)
    tallies = await queue.tallies()
    assert tallies.failures["worker_lost"] == 1
    assert tallies.retries["worker_lost"] == 2


async def test_the_oldest_waiting_job_shows_its_age(queue: JobQueue, redis_client: "Redis") -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    now, _ = redis_client.time()
    redis_client.zadd(record.QUEUED, {jobs[0].id: now - 100})
    tallies: Counters = await queue.tallies()
    assert tallies.oldest_seconds == pytest.approx(101, abs=4)


def test_bounds_are_those_of_the_scripts() -> None:
    (line,) = [line for line in record.script("claim").splitlines() if "local BOUNDS" in line]
    assert line == "local BOUNDS = {" + ", ".join(f"'{bound}'" for bound in BOUNDS) + "}"
