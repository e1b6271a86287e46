"""Tests admission: limits, idempotency keys, and what RQ sees of a job."""

import asyncio
import json
import zlib
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RqJob
from ulid import ULID

from tests.support.queue_steps import IMAGE, status, take, waiting
from tests.support.requests import make_request
from worker.auth.api_keys import KeyLimits
from worker.errors import IdempotencyConflict, QueueFull
from worker.job import Job, JobWarning
from worker.queue.job_queue import JobQueue
from worker.queue.layout import record, redis_keys, rq_layout
from worker.queue.owner_index import OwnerUsage
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.worker_queue import WorkerQueue
from worker.settings import Settings

RQ_LIST = rq_layout.list_key()


async def test_admits_a_job_that_can_be_read_back(queue: JobQueue) -> None:
    warning = JobWarning(code="short_prompt", detail="few tags")
    job = await queue.admit(make_request(seed=7), warnings=(warning,))
    assert job.status == "queued"
    assert job.request == make_request(seed=7)
    assert job.warnings == (warning,)
    assert job.attempts == 0
    assert job.queue_position == 0
    assert job.started_at is None
    assert (await queue.get(job.id)) == job
    assert await queue.state.depth() == (1, 0)
    assert (await queue.state.counters()).accepted == 1


async def reads(client: "Redis") -> int:
    """How often the server has read from its connections, including for this question."""
    stats: Any = client.info("stats")
    return int(stats["total_reads_processed"])


async def test_admission_takes_one_round_trip(queue: JobQueue, redis_client: "Redis") -> None:
    limits = KeyLimits(concurrency=9, quota=1000)
    usages: list[OwnerUsage] = []

    async def admit(**changes: Any) -> Job:
        own = queue.owned_by("alice")
        return await own.admit(make_request(**changes), limits=limits, on_usage=usages.append)

    first = await admit()  # loads the script and reads the throughput of the workers
    before = await reads(redis_client)
    job = await admit(seed=2)
    assert await reads(redis_client) - before == 2  # the second is this question
    assert (await queue.get(job.id)) == job
    assert job.queue_position == 1
    assert [usage.unfinished for usage in usages] == [1, 2]
    assert usages[1].spent == pytest.approx(2 * usages[0].spent)
    assert first.id != job.id


async def test_the_answer_tells_what_the_record_promises(
    queue: JobQueue, worker_queue: WorkerQueue, redis_client: "Redis"
) -> None:
    with redis_client.pipeline() as pipeline:
        worker_queue.heartbeat(pipeline, status("w", pace=0.7))
        worker_queue.heartbeat(pipeline, status("v", pace=0.33))
        pipeline.execute()
    redis_client.set(redis_keys.MEAN_COST, 1.234)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    for place, job in enumerate(jobs):
        promised: Any = redis_client.hget(redis_keys.job_key(job.id), "promised")
        assert job.queue_position == place
        assert job.eta_seconds == float(promised) > 0
        assert await queue.get(job.id) == job


async def test_nothing_is_promised_without_a_measured_worker(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    job = await queue.admit(make_request())
    assert job.eta_seconds is None
    assert not redis_client.hexists(redis_keys.job_key(job.id), "promised")


async def test_a_repeated_key_shows_the_job_as_it_is_now(
    queue: JobQueue, worker_queue: WorkerQueue
) -> None:
    key: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f"}
    first = await queue.admit(make_request(), **key)
    later = await queue.admit(make_request(), idempotency_key="l", fingerprint="f")
    take(worker_queue, first.id, "t1")
    again = await queue.admit(make_request(), **key)
    assert (again.id, again.status, again.worker) == (first.id, "running", "w")
    assert again == await queue.get(first.id)
    moved = await queue.admit(make_request(), idempotency_key="l", fingerprint="f")
    assert (moved.id, moved.queue_position) == (later.id, 0)
    worker_queue.commit(first.id, "t1", "succeeded", images=[IMAGE])
    ended = await queue.admit(make_request(), **key)
    assert ended == await queue.get(first.id)
    assert ended.images == (IMAGE,)


async def test_the_limit_holds_under_concurrency(redis_url: str, settings: Settings) -> None:
    queue = JobQueue(redis_url, settings.model_copy(update={"max_queue": 10}))
    results = await asyncio.gather(
        *(queue.admit(make_request(seed=seed)) for seed in range(64)), return_exceptions=True
    )
    admitted = [result for result in results if isinstance(result, Job)]
    refused = [result for result in results if isinstance(result, QueueFull)]
    assert (len(admitted), len(refused)) == (10, 54)
    assert all(1 <= exc.retry_after <= 120 and exc.limit == 10 for exc in refused)
    assert await queue.state.depth() == (10, 0)
    await queue.close()


async def test_positions_follow_the_order_of_admission(queue: JobQueue) -> None:
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    assert [(await queue.get(job.id)).queue_position for job in jobs] == [0, 1, 2]


async def test_a_repeated_key_finds_the_first_job(queue: JobQueue) -> None:
    jobs = await asyncio.gather(
        *(
            queue.admit(make_request(seed=seed), idempotency_key="k", fingerprint="f")
            for seed in range(32)
        )
    )
    assert len({job.id for job in jobs}) == 1
    assert await queue.state.depth() == (1, 0)


async def test_a_repeated_key_is_answered_even_when_the_queue_is_full(
    redis_url: str, settings: Settings
) -> None:
    queue = JobQueue(redis_url, settings.model_copy(update={"max_queue": 1}))
    first = await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    with pytest.raises(QueueFull):
        await queue.admit(make_request())
    again = await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    assert again.id == first.id
    await queue.close()


async def test_a_key_with_another_request_conflicts(queue: JobQueue) -> None:
    await queue.admit(make_request(), idempotency_key="k", fingerprint="f")
    with pytest.raises(IdempotencyConflict):
        await queue.admit(make_request(seed=2), idempotency_key="k", fingerprint="g")
    await queue.admit(make_request(seed=2), idempotency_key="other", fingerprint="g")
    assert await queue.state.depth() == (2, 0)


async def test_a_renewed_key_stands_for_the_newest_job(queue: JobQueue) -> None:
    key: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f"}
    first, second = [
        await queue.admit(make_request(), is_key_renewed=True, **key) for _ in range(2)
    ]
    assert first.id != second.id
    assert (await queue.admit(make_request(), **key)).id == second.id


async def test_a_renewed_key_of_a_refused_request_stands_for_no_job(
    redis_url: str, settings: Settings
) -> None:
    queue = JobQueue(redis_url, settings.model_copy(update={"max_queue": 1}))
    key: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f"}
    await queue.admit(make_request(), is_key_renewed=True, **key)
    for is_key_renewed in (True, False):
        with pytest.raises(QueueFull):
            await queue.admit(make_request(), is_key_renewed=is_key_renewed, **key)
    await queue.close()


async def test_a_key_is_forgotten_only_with_its_own_job(queue: JobQueue) -> None:
    old = await queue.admit(make_request(), idempotency_key="k")
    new = await queue.admit(make_request(), idempotency_key="k", is_key_renewed=True)
    await queue.forget_key("k", old.id)
    assert (await queue.admit(make_request(), idempotency_key="k")).id == new.id
    await queue.owned_by("somebody").forget_key("k", new.id)
    assert (await queue.admit(make_request(), idempotency_key="k")).id == new.id
    await queue.forget_key("k", new.id)
    assert (await queue.admit(make_request(), idempotency_key="k")).id != new.id


def _in_any_order(reply: list[Any]) -> list[Any]:
    """A reply whose record is a mapping: Redis may give the same fields in another order."""
    return [
        dict(zip(part[::2], part[1::2], strict=True)) if isinstance(part, list) else part
        for part in reply
    ]


def test_a_call_repeated_after_a_lost_reply_pushes_once(redis_client: "Redis") -> None:
    job_id = str(ULID())
    fields = record.new_record(make_request(), warnings=(), traceparent=None)
    pairs = [part for pair in fields.items() for part in pair]
    rq_pairs = rq_layout.job_fields()
    no_call = ["", "", "", 0]
    arguments = [
        10,
        "",
        "",
        60,
        "",
        "[]",
        60,
        "",
        "",
        "",
        0,
        0,
        0,
        "",
        *no_call,
        len(pairs),
        *pairs,
    ]
    arguments += rq_pairs
    admit = LuaScript(redis_client, "admit")
    replies = [admit(job_id, *arguments) for _ in range(2)]
    assert _in_any_order(replies[0]) == _in_any_order(replies[1])
    assert replies[0][:2] == [b"admitted", job_id.encode()]
    assert waiting(redis_client) == [job_id]
    assert redis_client.xlen(redis_keys.events_key(job_id)) == 1


async def test_the_job_looks_as_if_rq_had_queued_it(queue: JobQueue, redis_client: "Redis") -> None:
    job = await queue.admit(make_request("a secret prompt"))
    ours = redis_client.hgetall(rq_layout.job_key(job.id))
    own = Queue("elsewhere", connection=redis_client, serializer="json")
    reference = own.enqueue("kirazuri.generate", description="generate", job_timeout=-1)
    theirs = redis_client.hgetall(reference.key)
    assert set(theirs) <= set(ours)
    for name in (b"status", b"description", b"timeout", b"started_at", b"worker_name"):
        assert ours[name] == theirs[name]
    assert redis_client.smembers("rq:queues") == {RQ_LIST.encode(), b"rq:queue:elsewhere"}
    fetched = RqJob.fetch(job.id, connection=redis_client, serializer="json")
    assert fetched.origin == rq_layout.QUEUE
    assert fetched.func_name == "kirazuri.generate"


async def test_rq_holds_json_and_no_prompt(queue: JobQueue, redis_client: "Redis") -> None:
    job = await queue.admit(make_request("a secret prompt"))
    stored: Any = redis_client.hgetall(rq_layout.job_key(job.id))
    assert json.loads(zlib.decompress(stored[b"data"])) == ["kirazuri.generate", None, [], {}]
    assert not any(b"secret" in value for value in stored.values())
