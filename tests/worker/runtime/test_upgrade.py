"""A rolling upgrade: workers run jobs of older releases and leave those of newer ones alone."""

import json
import time
from typing import Any

import pytest
from redis import Redis
from ulid import ULID

from tests.support.queue_steps import maintain, take_next
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import async_wait_until
from worker.job import SCHEMA_VERSION
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.owner_index import OldRecords
from worker.queue.scripts.lua_script import source
from worker.queue.worker_queue import Repairs, WorkerQueue
from worker.settings import Settings

NEXT_QUEUE = f"kirazuri-v{SCHEMA_VERSION + 1}"


def admitted_by_first_release(client: "Redis", **changes: object) -> str:
    """A job as the first release wrote it: schema 1, no `queue` in the record."""
    job_id = str(ULID())
    request = json.loads(make_request().model_dump_json()) | changes
    known = [
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "steps",
        "cfg_scale",
        "sampler",
        "scheduler",
        "seed",
        "num_images",
        "image_format",
        "image_quality",
        "metadata",
    ]
    fields = {
        "status": "queued",
        "attempt": 0,
        "created": time.time(),
        "schema": 1,
        "request": json.dumps({name: request[name] for name in known}),
        "warnings": "[]",
        "cost": 1.0,
        "traceparent": "",
    }
    write(client, job_id, "kirazuri-v1", fields)
    return job_id


def admitted_by_next_release(client: "Redis") -> str:
    """A job whose request has a field that this release does not know."""
    job_id = str(ULID())
    request = json.loads(make_request().model_dump_json()) | {"depth_map": "x.png"}
    fields = {
        "status": "queued",
        "attempt": 0,
        "created": time.time(),
        "schema": SCHEMA_VERSION + 1,
        "queue": NEXT_QUEUE,
        "request": json.dumps(request),
        "warnings": "[]",
        "cost": 1.0,
    }
    write(client, job_id, NEXT_QUEUE, fields)
    return job_id


def write(client: "Redis", job_id: str, queue: str, fields: dict[str, object]) -> None:
    """Write a job as the admit script of every release does."""
    client.hset(redis_keys.job_key(job_id), mapping=fields)  # type: ignore[arg-type]
    pairs = rq_layout.job_fields(queue=queue)
    client.hset(rq_layout.job_key(job_id), items=pairs)
    client.sadd("rq:queues", rq_layout.list_key(queue))
    client.rpush(rq_layout.list_key(queue), job_id)
    client.zadd(redis_keys.QUEUED, {job_id: time.time()})
    event = {"event": "queued", "data": "{}"}
    client.xadd(redis_keys.events_key(job_id), event)  # type: ignore[arg-type]


async def test_jobs_of_the_first_release_run(
    queue: JobQueue, redis_client: "Redis", run_worker: RunWorker
) -> None:
    old = [admitted_by_first_release(redis_client, seed=seed) for seed in range(3)]
    assert (await queue.get(old[2])).queue_position == 2
    new = [(await queue.admit(make_request(seed=9))).id]
    with run_worker():
        done = [await queue.wait(job_id, 60) for job_id in old + new]
    assert [job.status for job in done] == ["succeeded"] * 4
    assert redis_client.zcard("rq:wip:kirazuri-v1") == 0
    assert redis_client.llen("rq:queue:kirazuri-v1") == 0


async def test_jobs_that_the_release_before_queued_come_first(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    """That release kept all waiting jobs in RQ's list, in the order of their turns."""
    jobs = [(await queue.admit(make_request(seed=seed))).id for seed in range(3)]
    redis_client.delete(*redis_client.scan_iter("kirazuri:fair:*"))
    for turn, job_id in enumerate(jobs):
        redis_client.rpush(rq_layout.list_key(), job_id)
        for key in (redis_keys.OLD_TURNS, redis_keys.PREFIXES["old_line"]):
            redis_client.zadd(key, {job_id: turn})
    redis_client.zadd(redis_keys.OLD_LINES, {"": 1})
    first = admitted_by_first_release(redis_client)
    jobs.append((await queue.admit(make_request(seed=3))).id)
    assert [(await queue.get(job_id)).queue_position for job_id in jobs] == [0, 1, 2, 3]
    assert (await queue.cancel(jobs[1])).status == "cancelled"
    claims = take_next(worker_queue, 8)
    assert [claim.job_id for claim in claims] == [first, *(jobs[n] for n in (0, 2, 3))]
    assert [claim.queue for claim in claims] == [rq_layout.FIRST_QUEUE, *[rq_layout.QUEUE] * 3]
    assert redis_client.exists(redis_keys.OLD_TURNS, redis_keys.OLD_LINES) == 0
    assert list(redis_client.scan_iter("kirazuri:line:*")) == []


async def test_a_job_that_an_older_worker_put_into_rqs_list_runs_once(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    """Its maintenance misses the job there after a minute; the job keeps its turn."""
    jobs = [(await queue.admit(make_request(seed=seed))).id for seed in range(2)]
    redis_client.rpush(rq_layout.list_key(), jobs[1])
    assert [claim.job_id for claim in take_next(worker_queue, 8)] == jobs
    assert redis_client.llen(rq_layout.list_key()) == 0


async def test_jobs_of_the_next_release_stay_in_its_queue(
    queue: JobQueue, worker_queue: WorkerQueue, redis_url: str, settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as next_release:
        next_release.setattr(rq_layout, "QUEUE", NEXT_QUEUE)
        next_release.setattr(rq_layout, "QUEUES", (NEXT_QUEUE, *rq_layout.QUEUES))
        source.cache_clear()
        newer_api = JobQueue(redis_url, settings)
        newer = await newer_api.admit(make_request())
        await newer_api.close()
    source.cache_clear()
    assert take_next(worker_queue) == []
    assert (await queue.get(newer.id)).queue_position == 0
    assert (await queue.cancel(newer.id)).status == "cancelled"


async def test_jobs_of_the_first_release_are_listed(
    queue: JobQueue, redis_client: "Redis", run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no lists of jobs. The first worker of this release makes them, once."""
    monkeypatch.setattr("worker.queue.owner_index._SCANNED_AT_ONCE", 2)
    waiting, ended = [[admitted_by_first_release(redis_client) for _ in range(5)] for _ in "ab"]
    for number, job_id in enumerate(ended):
        image = {"url": f"/images/{number:040x}.png", "seed": 1, "width": 64, "height": 64}
        file = {"format": "png", "bytes": 9, "sha256": "a" * 64}
        fields: dict[Any, Any] = {"status": "succeeded", "images": json.dumps([image | file])}
        fields |= {"finished": time.time(), "expires": time.time() + 3600}
        redis_client.hset(redis_keys.job_key(job_id), mapping=fields)
        redis_client.expire(redis_keys.job_key(job_id), 3600 + number)
        redis_client.lrem("rq:queue:kirazuri-v1", 0, job_id)
        redis_client.zrem(redis_keys.QUEUED, job_id)
    redis_client.hset(redis_keys.job_key(ended[0]), "owner", "somebody")
    assert await queue.jobs() == ([], None)
    with run_worker():
        await async_wait_until(lambda: redis_client.exists(redis_keys.INDEXED))
        page, _ = await queue.jobs(limit=100)
        assert {job.id for job in page} == {*waiting, *ended[1:]}
        for job_id in waiting:
            assert (await queue.wait(job_id, 60)).status == "succeeded"
    theirs = queue.owned_by("somebody")
    assert [job.id for job in (await theirs.jobs())[0]] == [ended[0]]
    await theirs.owner_index.check_image(f"{0:040x}.png")
    assert redis_client.ttl(redis_keys.jobs_key("somebody")) > 3000
    assert redis_client.ttl(redis_keys.jobs_key("")) > 3000
    assert redis_client.scard(redis_keys.unfinished_key("")) == 0
    redis_client.delete(redis_keys.jobs_key("somebody"))
    assert not OldRecords(redis_client).index_page()
    assert await theirs.jobs() == ([], None)


async def test_an_old_job_is_cancelled_in_its_own_queue(
    queue: JobQueue, redis_client: "Redis"
) -> None:
    job_id = admitted_by_first_release(redis_client)
    assert (await queue.cancel(job_id)).status == "cancelled"
    assert redis_client.llen("rq:queue:kirazuri-v1") == 0


async def test_an_old_job_missing_in_rq_is_restored(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue, run_worker: RunWorker
) -> None:
    job_id = admitted_by_first_release(redis_client)
    redis_client.delete("rq:queue:kirazuri-v1")
    redis_client.zadd(redis_keys.QUEUED, {job_id: time.time() - 100})
    assert maintain(worker_queue).restored == (job_id,)
    assert redis_client.lrange("rq:queue:kirazuri-v1", 0, -1) == [job_id.encode()]
    with run_worker():
        assert (await queue.wait(job_id, 60)).status == "succeeded"


@pytest.mark.parametrize("is_lost", [False, True])
async def test_newer_jobs_can_be_read_and_cancelled_but_do_not_run(
    queue: JobQueue, redis_client: "Redis", run_worker: RunWorker, is_lost: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rounds: list[Repairs] = []
    read_repairs = WorkerQueue.read_repairs

    def watched(worker_queue: WorkerQueue, reply: list[Any]) -> Repairs:
        rounds.append(read_repairs(worker_queue, reply))
        return rounds[-1]

    monkeypatch.setattr(WorkerQueue, "read_repairs", watched)
    newer = admitted_by_next_release(redis_client)
    if is_lost:
        redis_client.delete(rq_layout.list_key(NEXT_QUEUE))
        redis_client.zadd(redis_keys.QUEUED, {newer: time.time() - 100})
    ours = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(ours.id, 60)).status == "succeeded"
        await async_wait_until(lambda: len(rounds) >= 3)
    assert set(rounds) == {Repairs((), ())}
    shown = await queue.get(newer)
    assert (shown.status, shown.attempts) == ("queued", 0)
    assert shown.request.prompt == make_request().prompt
    waiting = redis_client.lrange(rq_layout.list_key(NEXT_QUEUE), 0, -1)
    assert waiting == ([] if is_lost else [newer.encode()])
    assert redis_client.lrange(rq_layout.list_key(), 0, -1) == []
    assert (await queue.cancel(newer)).status == "cancelled"
    assert redis_client.llen(rq_layout.list_key(NEXT_QUEUE)) == 0
