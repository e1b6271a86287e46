"""Claims and reports jobs as a worker does, without a worker."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from redis import Redis

from worker.job import StoredImage
from worker.job_events import JobEvent
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.worker_queue import Claim, Report, WorkerQueue, read_claim

LEASES = rq_layout.leases_key()


RQ_LIST = rq_layout.list_key()


IMAGE = StoredImage(
    url="/images/" + "a" * 40 + ".png",
    seed=1,
    width=64,
    height=64,
    format="png",
    bytes=10,
    sha256="a" * 64,
)


def take(
    worker_queue: WorkerQueue,
    job_id: str,
    token: str,
    *,
    lease: float = 60,
    is_alone: bool = True,
) -> Claim | str:
    """Pop the id and claim it, as the control loop does."""
    client = worker_queue._redis
    client.lrem(RQ_LIST, 0, job_id)
    with client.pipeline() as pipeline:
        pipeline.zadd(LEASES, {f"{job_id}:{token}": time.time() + lease})
        worker_queue.claim(pipeline, job_id, token, worker="w", is_alone=is_alone)
        claim = read_claim(pipeline.execute()[-1])
    if isinstance(claim, str):
        client.zrem(LEASES, f"{job_id}:{token}")
    return claim


def waiting(client: "Redis") -> list[str]:
    """The ids of all queued jobs, in the order in which workers take them."""
    ids: Any = client.zrange(redis_keys.QUEUED, 0, -1)
    places: Any = LuaScript(client, "queue_positions")("", *ids)
    return [job_id.decode() for _, job_id in sorted(zip(places, ids, strict=True))]


def report(worker_queue: WorkerQueue, job_id: str, token: str, news: Report) -> Any:
    """Send a report, as the control loop does; returns its reply."""
    with worker_queue._redis.pipeline() as pipeline:
        worker_queue.report(pipeline, job_id, token, news)
        return pipeline.execute()[-1]


async def follow_events(
    queue: JobQueue, job_id: str, *, after: str | None = None
) -> AsyncGenerator[JobEvent, None]:
    """The events of a job up to its end, without the pauses between them."""
    async with aclosing(queue.events(job_id, after=after)) as events:
        async for event in events:
            if event is not None:
                yield event
