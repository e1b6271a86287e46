"""Tests the worker's transitions: claim, report, commit, release, and their fencing."""

import contextlib
import json
import time
from typing import Any

import pytest
from redis import Redis

from tests.support.queue_steps import (
    IMAGE,
    LEASES,
    RQ_LIST,
    follow_events,
    maintain,
    report,
    take,
    take_next,
    waiting,
)
from tests.support.requests import make_request
from worker.errors import JobAlreadyFinished
from worker.job import Checkpoint
from worker.job_errors import job_error
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.worker_queue import Claim, Report, Unreadable, WorkerQueue, read_claims
from worker.settings import Settings


async def test_a_claim_carries_the_request_and_counts_the_attempt(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request(seed=3))
    claim = take(worker_queue, job.id, "t1")
    assert isinstance(claim, Claim)
    assert (claim.attempt, claim.request) == (1, make_request(seed=3))
    running = await queue.get(job.id)
    assert (running.status, running.attempts, running.worker) == ("running", 1, "w")
    assert running.started_at is not None
    assert running.timings.queued is not None
    assert await queue.state.depth() == (0, 1)


async def test_a_repeated_claim_counts_no_attempt(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    first = take(worker_queue, job.id, "t1")
    assert take(worker_queue, job.id, "t1") == first
    assert (await queue.get(job.id)).attempts == 1


async def test_a_second_worker_is_refused_while_the_lease_lives(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    assert take(worker_queue, job.id, "t2") is None
    assert (await queue.get(job.id)).attempts == 1


async def test_an_old_token_writes_nothing_after_another_claim(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1", lease=-1)
    second = take(worker_queue, job.id, "t2")
    assert isinstance(second, Claim)
    assert second.attempt == 2
    before = redis_client.hgetall(redis_keys.job_key(job.id))
    assert report(worker_queue, job.id, "t1", Report(event="progress")) == b"lost"
    assert worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE]) == "lost"
    assert worker_queue.release(job.id, "t1", "x", is_free=True) == "lost"
    assert redis_client.hgetall(redis_keys.job_key(job.id)) == before
    assert worker_queue.commit(job.id, "t2", "succeeded", images=[IMAGE]) == "succeeded"
    assert worker_queue.commit(job.id, "t1", "failed", error=job_error("x", "y")) == "lost"
    names = [event.event async for event in follow_events(queue, job.id)]
    assert names == ["queued", "started", "retrying", "started", "succeeded"]


async def test_commit_ends_a_job_once_and_cleans_rq(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    timings = {"denoise": 1.5}
    for _ in range(2):  # the second as after a lost reply
        reply = worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE], timings=timings)
        assert reply == "succeeded"
    done = await queue.get(job.id)
    assert (done.status, done.images, done.timings.denoise) == ("succeeded", (IMAGE,), 1.5)
    assert done.progress.fraction == 1
    assert done.finished_at is not None
    assert done.expires_at is not None
    assert 86_395 < (done.expires_at - done.finished_at).total_seconds() < 86_405
    assert (await queue.state.counters()).finished["succeeded"] == 1
    assert await queue.state.depth() == (0, 0)
    assert not redis_client.exists(rq_layout.job_key(job.id), LEASES)
    score = redis_client.zscore(redis_keys.IMAGES, IMAGE.name)
    assert score == pytest.approx(done.expires_at.timestamp(), abs=1)
    assert 86_300 < redis_client.ttl(redis_keys.job_key(job.id)) <= 86_400


async def test_an_earlier_cancel_wins_over_the_commit(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    assert (await queue.cancel(job.id)).status == "running"
    assert report(worker_queue, job.id, "t1", Report()) == b"cancel"
    assert worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE]) == "cancelled"
    done = await queue.get(job.id)
    assert (done.status, done.images) == ("cancelled", ())
    with pytest.raises(JobAlreadyFinished, match="cancelled"):
        await queue.cancel(job.id)


async def test_a_cancelled_job_leaves_the_queue_at_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    assert (await queue.cancel(job.id)).status == "cancelled"
    assert take_next(worker_queue) == []
    assert not redis_client.exists(rq_layout.job_key(job.id))
    assert await queue.state.depth() == (0, 0)
    assert take(worker_queue, job.id, "t1") is None
    assert [event.event async for event in follow_events(queue, job.id)] == ["queued", "cancelled"]


async def test_a_job_of_a_dead_worker_can_be_cancelled(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1", lease=-1)
    assert (await queue.cancel(job.id)).status == "cancelled"
    assert worker_queue.commit(job.id, "t1", "succeeded", images=[IMAGE]) == "cancelled"


def test_a_cancel_may_be_repeated_after_a_lost_reply(redis_client: "Redis") -> None:
    job_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    redis_client.hset(redis_keys.job_key(job_id), mapping={"status": "queued", "attempt": 0})
    cancel = LuaScript(redis_client, "cancel")
    assert [cancel(job_id, "n1", 60) for _ in range(2)] == [b"cancelled"] * 2
    assert cancel(job_id, "n2", 60) == b"finished"


async def test_a_job_whose_workers_die_fails_after_the_last_attempt(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    for attempt in (1, 2, 3):
        claim = take(worker_queue, job.id, f"t{attempt}", lease=-1)
        assert isinstance(claim, Claim)
        assert claim.attempt == attempt
    assert take(worker_queue, job.id, "t4") is None
    done = await queue.get(job.id)
    assert (done.status, done.attempts) == ("failed", 3)
    assert done.error is not None
    assert (done.error.code, done.error.type) == ("worker_lost", "/problems/worker_lost")
    last = [event async for event in follow_events(queue, job.id)][-1]
    assert last.data == {"error": done.error.model_dump()}


async def test_a_job_of_lost_workers_has_its_last_attempt_alone_and_the_rest_pass_it_over(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    suspect, other, last = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    for token in ("t1", "t2"):
        take(worker_queue, suspect.id, token, lease=-1, is_alone=False)
    maintain(worker_queue)
    busy = {"": 1}
    assert take_next(worker_queue, worker="first", running=busy) == [], "it makes room"
    (claim,) = take_next(worker_queue, worker="second", running=busy)
    assert (claim.job_id, claim.must_be_alone) == (other.id, False)
    assert take_next(worker_queue, worker="first", running=busy) == []
    (claim,) = take_next(worker_queue, 5, worker="first")
    assert (claim.job_id, claim.attempt, claim.must_be_alone) == (suspect.id, 3, True)
    (claim,) = take_next(worker_queue, worker="second", running=busy)
    assert claim.job_id == last.id


async def test_a_solo_turn_of_a_dead_worker_passes_to_another(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    suspect, _ = [await queue.admit(make_request(seed=seed)) for seed in range(2)]
    for token in ("t1", "t2"):
        take(worker_queue, suspect.id, token, lease=-1)
    maintain(worker_queue)
    assert take_next(worker_queue, worker="first", running={"": 1}) == []
    ttl: Any = redis_client.pttl(redis_keys.SOLO_TURN)
    assert 0 < ttl <= 2000, "the turn ends with the lease of a worker that died"
    redis_client.delete(redis_keys.SOLO_TURN)
    assert take_next(worker_queue, worker="second", running={"": 1}) == []
    assert [claim.job_id for claim in take_next(worker_queue, 9, worker="second")] == [suspect.id]


async def test_a_job_whose_attempts_failed_is_no_suspect(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    job, other = [await queue.admit(make_request(seed=seed)) for seed in range(2)]
    for token in ("t1", "t2"):
        take(worker_queue, job.id, token)
        worker_queue.release(job.id, token, "engine_error", is_free=False)
    claims = take_next(worker_queue, 9, running={"": 1})
    assert {claim.job_id: claim.attempt for claim in claims} == {job.id: 3, other.id: 1}
    assert not any(claim.must_be_alone for claim in claims)


async def test_a_claim_takes_many_jobs_and_may_be_repeated(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(4)]
    replies = []
    for _ in range(2):  # the second as after a lost reply
        with redis_client.pipeline() as pipeline:
            tokens = ["t1", "t2", "t3"]
            worker_queue.claim(pipeline, tokens, worker="w", checkpoints=[], running={})
            replies.append(read_claims(pipeline.execute()[-1]))
    assert [claim.job_id for claim in replies[0]] == [job.id for job in jobs[:3]]
    assert replies[0] == replies[1]
    assert [(await queue.get(job.id)).attempts for job in jobs] == [1, 1, 1, 0]


async def test_jobs_wait_for_a_worker_of_their_checkpoint(
    redis_url: str, queue: JobQueue, settings: Settings, worker_queue: WorkerQueue
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        jobs: list[str] = []
        for checkpoint in (("a", "1"), ("a", "2"), ("b", "")):
            own = JobQueue(redis_url, settings, checkpoint=checkpoint)
            stack.push_async_callback(own.close)
            jobs += [(await own.admit(make_request(seed=seed))).id for seed in range(2)]
        anybody = (await queue.admit(make_request())).id

        def taken(*checkpoints: Checkpoint) -> list[str]:
            return [one.job_id for one in take_next(worker_queue, 9, checkpoints=checkpoints)]

        assert taken(("c", "1"), ("c", "")) == [anybody]
        assert taken(("a", "2"), ("a", "")) == jobs[2:4]
        # A job that returned, or that was lost, is before the lines of all checkpoints.
        first = take_next(worker_queue, checkpoints=[("a", "1")])[0]
        worker_queue.release(first.job_id, first.token, "worker_stopped", is_free=True)
        assert taken(("b", "1"), ("b", "")) == jobs[4:]
        assert [(await queue.get(job)).queue_position for job in jobs[:2]] == [0, 1]
        assert taken(("a", "1")) == jobs[:2]


@pytest.mark.parametrize("is_free", [True, False])
async def test_release_queues_again(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, is_free: bool
) -> None:
    job, other = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    take(worker_queue, job.id, "t1")
    for _ in range(2):  # the second as after a lost reply
        assert worker_queue.release(job.id, "t1", "why", is_free=is_free) == "released"
    order = [job.id, other.id] if is_free else [other.id, job.id]
    assert waiting(redis_client) == order
    again = await queue.get(job.id)
    assert (again.status, again.attempts) == ("queued", 0 if is_free else 1)
    assert await queue.state.depth() == (2, 0)
    events: Any = redis_client.xrange(redis_keys.events_key(job.id))
    assert [fields[b"event"] for _, fields in events] == [b"queued", b"started", b"retrying"]
    attempt = 1 if is_free else 2
    assert json.loads(events[-1][1][b"data"]) == {"attempt": attempt, "reason": "why"}


async def test_the_same_image_is_announced_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1")
    news = Report(event="image", data=IMAGE.model_dump(mode="json"), image=IMAGE.name)
    assert [report(worker_queue, job.id, "t1", news) for _ in range(2)] == [b"ok"] * 2
    events: Any = redis_client.xrange(redis_keys.events_key(job.id))
    assert [fields[b"event"] for _, fields in events].count(b"image") == 1


async def test_reconcile_puts_back_jobs_that_rq_lost(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    lost, dead, alive, fresh = [await queue.admit(make_request(seed=s)) for s in range(4)]
    take(worker_queue, dead.id, "t1")
    take(worker_queue, alive.id, "t2")
    redis_client.zrem(LEASES, f"{dead.id}:t1")
    redis_client.zrem(f"kirazuri:fair:{rq_layout.QUEUE}:::line:", lost.id)
    redis_client.delete(*(rq_layout.job_key(job.id) for job in (lost, dead, alive, fresh)))
    redis_client.zadd(redis_keys.QUEUED, {lost.id: time.time() - 100})
    assert sorted(maintain(worker_queue).restored) == sorted([lost.id, dead.id])
    assert sorted(redis_client.lrange(RQ_LIST, 0, -1)) == sorted(
        [lost.id.encode(), dead.id.encode()]
    )
    assert redis_client.hget(rq_layout.job_key(lost.id), "origin") == rq_layout.QUEUE.encode()
    assert maintain(worker_queue).restored == ()
    claim = take(worker_queue, dead.id, "t3")
    assert isinstance(claim, Claim)
    assert claim.attempt == 2


async def test_maintenance_that_a_stopped_redis_runs_late_takes_no_job(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The leases expired while Redis stood still, and their workers can renew them only now."""
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t1", lease=-1)
    now = time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr("worker.queue.worker_queue.time.time", lambda: now - 5)
        maintain(worker_queue)
    assert redis_client.llen(RQ_LIST) == 0
    maintain(worker_queue)
    assert redis_client.lrange(RQ_LIST, 0, -1) == [job.id.encode()]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *((name, "git") for name in ("attempt", "created", "cost", "promised", "paid_on")),
        ("events", "git"),
        ("inputs", "7"),
    ],
)
async def test_a_field_that_another_program_changed_stops_no_job(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, field: str, text: str
) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    for job in jobs:
        take(worker_queue, job.id, job.id)
        redis_client.hset(redis_keys.job_key(job.id), mapping={"promised": 5, field: text})
    returned, failed, ended = jobs
    assert worker_queue.release(returned.id, returned.id, "x", is_free=True) == "released"
    assert worker_queue.commit(failed.id, failed.id, "failed") == "failed"
    assert worker_queue.commit(ended.id, ended.id, "succeeded") == "succeeded"
    found = [(await queue.get(job.id)).status for job in jobs]
    assert found == ["queued", "failed", "succeeded"]


async def test_a_claim_with_a_time_that_another_program_changed_is_unreadable(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    redis_client.hset(redis_keys.job_key(job.id), "created", "git")
    with redis_client.pipeline() as pipeline:
        worker_queue.claim(pipeline, ["t"], worker="w", checkpoints=[], running={})
        (claim,) = read_claims(pipeline.execute()[-1])
    assert isinstance(claim, Unreadable)
    assert claim.job_id == job.id


async def test_reports_of_a_call_wake_the_listeners_of_a_job_once(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(2)]
    for job in jobs:
        take(worker_queue, job.id, job.id)
    woken, heard = (
        redis_client.xlen(redis_keys.WAKE),
        redis_client.xlen(redis_keys.events_key(jobs[0].id)),
    )
    with redis_client.pipeline() as pipeline:
        worker_queue.report(
            pipeline,
            [
                (job.id, token, Report("progress", {"step": step}, fields={"step": step}))
                for step in (1, 2, 3)
                for job, token in ((jobs[0], jobs[0].id), (jobs[1], "of another worker"))
            ],
        )
        replies: Any = pipeline.execute()[-1]
    assert replies == [b"ok", b"lost"] * 3
    assert redis_client.xlen(redis_keys.events_key(jobs[0].id)) == heard + 3
    assert redis_client.xlen(redis_keys.WAKE) == woken + 1
    steps = [(await queue.get(job.id)).progress.step for job in jobs]
    assert steps == [3, 0]


async def test_a_claim_of_an_empty_queue_asks_for_nothing_else(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    assert take_next(worker_queue, 1) == []
    redis_client.config_resetstat()
    assert take_next(worker_queue, 1) == []
    stats: Any = redis_client.info("commandstats")
    assert not {"cmdstat_info", "cmdstat_lrange"} & set(stats)
