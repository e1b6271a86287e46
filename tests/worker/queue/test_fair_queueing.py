"""Tests fair queueing: the order in which the jobs of several owners are taken."""

import asyncio
import random
from typing import Any

import pytest
from redis import Redis

from model.bench.fair_queue import FairQueue
from model.workload import megapixel_steps
from tests.support.queue_steps import take, take_next, waiting
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import wait_until
from worker.auth.api_keys import WEIGHTS, KeyLimits, Priority
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.worker_queue import Claim, WorkerQueue
from worker.settings import Settings


async def admit(queue: JobQueue, owner: str, count: int = 1, **changes: Any) -> list[Job]:
    limits = KeyLimits(priority=changes.pop("priority", "normal"))
    own = queue.owned_by(owner)
    return [await own.admit(make_request(**changes), limits=limits) for _ in range(count)]


def owners(client: "Redis", worker_queue: WorkerQueue, count: int) -> str:
    """Take this many jobs; returns the first letters of their owners."""
    taken = ""
    for _ in range(count):
        claim = take(worker_queue, waiting(client)[0], "t")
        assert isinstance(claim, Claim)
        taken += claim.owner[:1]
    return taken


async def test_a_single_job_comes_before_many_of_another_owner(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, settings: Settings
) -> None:
    await admit(queue, "greedy", 100)
    assert owners(redis_client, worker_queue, 3) == "ggg"
    assert (await queue.owned_by("modest").forecast(make_request())).queue_position == 0
    assert (await queue.owned_by("greedy").forecast(make_request())).queue_position == 97
    (job,) = await admit(queue, "modest", steps=50)
    assert job.queue_position == 0
    (last,) = await admit(queue, "greedy")
    assert last.queue_position == 98
    assert owners(redis_client, worker_queue, 4) == "mggg"
    assert len(waiting(redis_client)) == 95


async def test_two_owners_take_turns_by_work(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    await admit(queue, "a", 9, steps=4)
    await admit(queue, "b", 3, steps=12)
    assert owners(redis_client, worker_queue, 12) in ("abaaabaaabaa", "abaaabaaabaaa")


async def test_priorities_are_shares(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    await admit(queue, "low", 20, priority="low")
    await admit(queue, "normal", 20)
    await admit(queue, "high", 20, priority="high")
    taken = owners(redis_client, worker_queue, 21)
    assert (taken.count("h"), taken.count("n"), taken.count("l")) == (16, 4, 1)


async def test_one_owner_alone_is_served_in_order(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    jobs = [job.id for n in (9, 2, 30, 1) for job in await admit(queue, "", 3, steps=n)]
    assert waiting(redis_client) == jobs
    take(worker_queue, jobs[0], "t0")
    take(worker_queue, jobs[1], "t1")
    jobs += [job.id for job in await admit(queue, "", 2)]
    assert waiting(redis_client) == jobs[2:]
    # Released unfinished: first again. After a failed attempt: last.
    worker_queue.release(jobs[1], "t1", "worker_stopped", is_free=True)
    worker_queue.release(jobs[0], "t0", "engine_error", is_free=False)
    assert waiting(redis_client) == [*jobs[1:], jobs[0]]


async def test_a_released_job_stays_first(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    (job, *_) = await admit(queue, "greedy", 3)
    take(worker_queue, job.id, "t")
    worker_queue.release(job.id, "t", "worker_stopped", is_free=True)
    (other,) = await admit(queue, "modest")
    assert waiting(redis_client)[:2] == [job.id, other.id]
    # Its owner does not pay a second time.
    assert owners(redis_client, worker_queue, 4) == "gmgg"


async def test_a_failed_attempt_puts_a_job_behind_its_owners_jobs_only(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    await admit(queue, "greedy", 50)
    (job, own) = await admit(queue, "modest", 2)
    take(worker_queue, job.id, "t")
    worker_queue.release(job.id, "t", "engine_error", is_free=False)
    order = waiting(redis_client)
    assert order.index(own.id) < order.index(job.id) < 5


async def test_cancelled_jobs_cost_their_owner_nothing(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    mine = await admit(queue, "a", 30)
    await admit(queue, "b", 30)
    for job in mine[:29]:
        await queue.cancel(job.id)
    assert waiting(redis_client).index(mine[-1].id) <= 1
    (another,) = await admit(queue, "a")
    assert waiting(redis_client).index(another.id) <= 3


async def test_nothing_is_left_when_all_is_taken(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    jobs = [*await admit(queue, "a", 3), *await admit(queue, "b", 2)]
    await queue.cancel(jobs[1].id)
    assert len(owners(redis_client, worker_queue, 4)) == 4
    assert list(redis_client.scan_iter("kirazuri:fair:*")) == []


@pytest.mark.parametrize("seed", range(2))
async def test_the_scripts_keep_the_turns_of_the_simulation(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, seed: int
) -> None:
    choice, turns, admitted = random.Random(seed), FairQueue[str](), set[str]()
    names: list[tuple[str, Priority]] = [
        ("a", "normal"),
        ("b", "low"),
        ("c", "high"),
        ("d", "normal"),
    ]
    for _ in range(100):
        what = choice.choices(["admit", "take", "cancel"], [5, 3, 2])[0]
        if what == "admit" or not len(turns):
            owner, priority = choice.choice(names)
            steps = choice.randint(1, 60)
            (job,) = await admit(queue, owner, priority=priority, steps=steps)
            cost = megapixel_steps(make_request(steps=steps))
            turns.join(job.id, owner, cost=cost, weight=WEIGHTS[priority])
            admitted.add(job.id)
        elif what == "take":
            # The scripts order equal turns by name, so these may differ.
            (claim,) = take_next(worker_queue)
            first = turns.next()
            assert first
            turn = turns.turn(turns.owner(claim.job_id))
            assert turn == pytest.approx(turns.turn(turns.owner(first)), abs=1e-3)
            turns.take(claim.job_id)
        else:
            gone = choice.choice(sorted(admitted & set(waiting(redis_client))))
            await queue.cancel(gone)
            turns.give_up(gone)
        assert len(waiting(redis_client)) == len(turns)


async def test_a_worker_takes_the_modest_owners_job_next(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    greedy = await admit(queue, "greedy", 6)
    (job,) = await admit(queue, "modest", steps=20)
    with run_worker(step_seconds=0.002, changes={"max_running": 1}):
        done = await queue.wait(job.id, 60)
        starts = [(await queue.wait(one.id, 60)).started_at for one in greedy]
    assert done.status == "succeeded"
    assert done.started_at
    assert sum(start < done.started_at for start in starts if start) <= 1


async def test_a_worker_full_of_one_owners_jobs_has_places_for_others(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    greedy = await admit(queue, "greedy", 6, steps=4000)
    with run_worker(step_seconds=0.01, changes={"max_running": 2}, is_drained=False) as worker:
        await asyncio.to_thread(wait_until, lambda: len(worker.slots) == 2)
        modest = await admit(queue, "modest", 2, steps=3)
        for job in modest:
            assert (await queue.wait(job.id, 60)).status == "succeeded"
        assert (await queue.state.counters()).finished["succeeded"] == 2
        states = [(await queue.get(job.id)).status for job in greedy]
        assert states == ["running"] * 2 + ["queued"] * 4


async def test_an_owner_that_is_passed_over_keeps_its_place(
    queue: JobQueue, worker_queue: WorkerQueue, settings: Settings
) -> None:
    a = [job.id for job in await admit(queue, "a", 3)]
    b = [job.id for job in await admit(queue, "b", 2)]
    take(worker_queue, a[0], "t")
    worker_queue.release(a[0], "t", "worker_stopped", is_free=True)
    full = settings.max_running
    assert take_next(worker_queue, running={"a": full, "b": full}) == []
    order = [
        claim.job_id
        for running in ({"a": full}, {"b": full}, {}, {}, {})
        for claim in take_next(worker_queue, running=running)
    ]
    assert order == [b[0], a[0], a[1], b[1], a[2]]
    assert take_next(worker_queue) == []


def test_a_stream_of_new_owners_starves_no_job() -> None:
    turns, taken = FairQueue[str](), []
    for number in range(3):
        turns.join(f"old {number}", "old", cost=2)
    for number in range(500):
        while len(turns) < 20:  # a full queue: each new job takes the place of one that was taken
            turns.join(f"new {number} {len(turns)}", f"owner {number} {len(turns)}", cost=1)
        name = turns.next()
        assert name
        turns.take(name)
        taken.append(name)
    waited = [taken.index(f"old {number}") for number in range(3)]
    # Its share is a 20th of the work: later than at once, but not never.
    assert waited[0] == 0
    assert 40 <= waited[1] < waited[2] <= 2 * 20 * (2 + 2) + 20
