"""Claims and reports jobs as a worker does, without a worker."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from uuid import uuid4

from redis import Redis

from worker.job import Checkpoint, StoredImage, WorkerStatus
from worker.job_events import JobEvent
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.scripts.lua_script import LuaScript, script_keys, source
from worker.queue.worker_queue import (
    Claim,
    Repairs,
    Report,
    Unreadable,
    WorkerQueue,
    read_claims,
)

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


def bring_to_front(client: "Redis", job_id: str) -> None:
    """Let a job be the next one, as if it had had its turn and came back."""
    own = resources.files("worker.queue.scripts") / "release.lua"
    shared = source("release").removesuffix(own.read_text("utf-8"))
    script = f"{shared}\nserve_turn()\nredis.call('LPUSH', KEY.rq_list, id)"
    keys = list(script_keys(job_id).values())
    client.eval(script, len(keys), *keys, job_id)


def take(
    worker_queue: WorkerQueue,
    job_id: str,
    token: str,
    *,
    lease: float = 60,
    is_alone: bool = True,
) -> Claim | None:
    """Claim this job, whatever is before it in the queue; None if it cannot be claimed."""
    client = worker_queue.redis
    forget_token(client, token, unless=job_id)
    bring_to_front(client, job_id)
    with client.pipeline() as pipeline:
        worker_queue.claim(
            pipeline,
            [token],
            worker="w",
            checkpoints=[],
            running={} if is_alone else {"another owner": 1},
        )
        reply = pipeline.execute()[-1]
    claims = read_claims(reply)
    claim = claims[0] if claims else None
    assert not isinstance(claim, Unreadable)
    if claim is not None:
        assert claim.job_id == job_id
        client.zadd(LEASES, {f"{job_id}:{token}": time.time() + lease})
    return claim


def take_next(
    worker_queue: WorkerQueue,
    count: int = 1,
    *,
    worker: str = "w",
    checkpoints: Sequence[Checkpoint] = (),
    running: Mapping[str, int] | None = None,
) -> list[Claim]:
    """Claim the next jobs of the queue, as a worker with these jobs by owner does."""
    with worker_queue.redis.pipeline() as pipeline:
        worker_queue.claim(
            pipeline,
            [uuid4().hex for _ in range(count)],
            worker=worker,
            checkpoints=checkpoints,
            running=running or {},
        )
        claims = read_claims(pipeline.execute()[-1])
    return [claim for claim in claims if isinstance(claim, Claim)]


def forget_token(client: "Redis", token: str, *, unless: str = "") -> None:
    """Let a token claim another job; real ones are unique."""
    key = redis_keys.PREFIXES["claimed"] + token
    if client.get(key) != unless.encode():
        client.delete(key)


def maintain(worker_queue: WorkerQueue) -> Repairs:
    """One round of maintenance."""
    with worker_queue.redis.pipeline() as pipeline:
        worker_queue.maintain(pipeline)
        return worker_queue.read_repairs(pipeline.execute()[-1])


def waiting(client: "Redis") -> list[str]:
    """The ids of all queued jobs, in the order in which workers take them."""
    ids: Any = client.zrange(redis_keys.QUEUED, 0, -1)
    places: Any = LuaScript(client, "queue_positions")("", *ids)
    return [job_id.decode() for _, job_id in sorted(zip(places, ids, strict=True))]


def report(worker_queue: WorkerQueue, job_id: str, token: str, news: Report) -> Any:
    """Send a report, as the control loop does; returns its reply."""
    with worker_queue.redis.pipeline() as pipeline:
        worker_queue.report(pipeline, [(job_id, token, news)])
        return pipeline.execute()[-1][0]


def status(name: str, *, pace: float = 0.0) -> WorkerStatus:
    """A heartbeat; `pace` is the measured throughput, 0 for none."""
    return WorkerStatus(
        name=name,
        is_warm=True,
        seen_at=datetime.now(UTC),
        card="fake",
        device="cpu",
        precision="float32",
        running=0,
        forwards=3,
        evaluations=9,
        details={"cost_per_second": pace},
    )


async def follow_events(
    queue: JobQueue, job_id: str, *, after: str | None = None
) -> AsyncGenerator[JobEvent, None]:
    """The events of a job up to its end, without the pauses between them; fails if one is long."""
    last = time.monotonic()
    async with aclosing(queue.event_pages(job_id, after=after)) as pages:
        async for page in pages:
            assert time.monotonic() < last + 60, f"no event of {job_id} for a minute"
            for event in page:
                last = time.monotonic()
                yield event
