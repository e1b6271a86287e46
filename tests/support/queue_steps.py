"""Single steps of a job in the queue, as a worker takes them."""

import time
from typing import Any

from redis import Redis

from worker.job import StoredImage
from worker.queue import record
from worker.queue.worker_queue import Claim, Report, WorkerQueue, read_claim

LEASES = f"rq:wip:{record.RQ_QUEUE}"


RQ_LIST = f"rq:queue:{record.RQ_QUEUE}"


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
    client: "Redis",
    ledger: WorkerQueue,
    job_id: str,
    token: str,
    *,
    lease: float = 60,
    is_alone: bool = True,
) -> Claim | str:
    """Pop the id and claim it, as the control loop does."""
    client.lrem(RQ_LIST, 0, job_id)
    with client.pipeline() as pipeline:
        pipeline.zadd(LEASES, {f"{job_id}:{token}": time.time() + lease})
        ledger.claim(pipeline, job_id, token, worker="w", is_alone=is_alone)
        claim = read_claim(pipeline.execute()[-1])
    if isinstance(claim, str):
        client.zrem(LEASES, f"{job_id}:{token}")
    return claim


def report(client: "Redis", ledger: WorkerQueue, job_id: str, token: str, note: Report) -> Any:
    with client.pipeline() as pipeline:
        ledger.report(pipeline, job_id, token, note)
        return pipeline.execute()[-1]
