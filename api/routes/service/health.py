"""`/livez`, `/readyz`, `/metrics`: liveness, readiness and Prometheus metrics."""

import asyncio
import time
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from api.http.error_handlers import problem_responses
from api.http.problem import PROBLEM_MEDIA_TYPE
from api.http.problem_types import NOT_READY
from api.http.queue_metrics import QueueSnapshot, render_metrics
from api.http.service_schemas import Alive, NotReady, Ready
from api.submit.dependencies import Metrics, Queue, ServiceSettings, Store
from worker.errors import QueueUnavailable, RedisLoading, RedisUnfit, StoreError
from worker.job import Checkpoint
from worker.queue.job_queue import JobQueue
from worker.queue.queue_state import SeenWorker
from worker.redis_io.server_faults import faults_against_jobs
from worker.settings import Settings
from worker.store.image_store import ImageStore
from worker.store.threads import check_in_thread

_STORE_SECONDS = 5.0
"""A store that takes longer is not ready."""

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="livez", summary="Liveness", responses=problem_responses())
async def livez(response: Response) -> Alive:
    """The process is up. Redis and workers are not checked."""
    response.headers["Cache-Control"] = "no-store"
    return Alive()


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Readiness",
    response_model=Ready,
    responses={503: {"model": NotReady}, **problem_responses()},
)
async def readyz(
    request: Request, queue: Queue, store: Store, settings: ServiceSettings
) -> Response:
    """200 if Redis takes jobs, images can be stored and a worker has this card's model loaded."""
    found, warnings = await _queue_reasons(queue, settings)
    reasons = await _store_reasons(store) + found
    headers = {"Cache-Control": "no-store"}
    if not reasons:
        ready = Ready(warnings=warnings).model_dump_json()
        return Response(ready, media_type="application/json", headers=headers)
    reasons += warnings
    problem = NotReady(
        type=NOT_READY.path,
        title=NOT_READY.title,
        status=NOT_READY.status,
        detail="; ".join(reasons),
        instance=request.state.request_id,
        code=NOT_READY.code,
        reasons=reasons,
    )
    return Response(
        problem.model_dump_json(),
        status_code=NOT_READY.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers={**headers, "Retry-After": "2"},
    )


async def _store_reasons(store: ImageStore) -> list[str]:
    try:
        await asyncio.wait_for(check_in_thread(store.check), _STORE_SECONDS)
    except StoreError as exc:
        return [f"image store: {exc}"]
    except TimeoutError:
        return ["image store: does not answer"]
    return []


async def _queue_reasons(queue: JobQueue, settings: Settings) -> tuple[list[str], list[str]]:
    """Why jobs of this API are not processed, and why jobs of others are not."""
    try:
        server = await queue.state.server()
        heartbeats = await queue.state.heartbeats()
        waiting = await queue.state.waiting_checkpoints()
    except RedisLoading:
        return ["redis: is loading its data"], []
    except RedisUnfit as exc:
        return [f"redis: {exc}"], []
    except QueueUnavailable:
        return ["redis: does not answer"], []
    reasons = [f"redis: {reason}" for reason in server.reasons(faults_against_jobs(settings))]
    # A worker that was killed together with this process has left a heartbeat behind.
    patience = min(settings.lease_seconds, time.monotonic() - queue.state.started_at)
    live = [heartbeat for heartbeat in heartbeats if heartbeat.age <= patience]
    own = queue.state.checkpoint
    if without_worker([own], live):
        reasons.append(f"worker: no live worker has {_name(own)} loaded")
    others = [one for one in without_worker(waiting, live) if one != own]
    warnings = [
        f"queue: jobs wait for {_name(one)}, which no live worker has loaded" for one in others
    ]
    warnings += [
        f"worker: {status.name} computes eagerly, because compiled code failed; see its log"
        for status in (heartbeat.status for heartbeat in live)
        if status.details.get("compiled", {}).get("name") == "failed"
    ]
    return reasons, warnings


def without_worker(waiting: Sequence[Checkpoint], live: Sequence[SeenWorker]) -> list[Checkpoint]:
    """The checkpoints whose jobs no live worker takes."""
    warm = [heartbeat.status for heartbeat in live if heartbeat.status.is_warm]
    return [one for one in waiting if not any(worker.runs(one) for worker in warm)]


def _name(checkpoint: Checkpoint) -> str:
    card, sha256 = checkpoint
    return f"{card} ({sha256[:12]}…)" if sha256 else card


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    summary="Prometheus metrics",
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problem_responses(),
    },
)
async def get_metrics(metrics: Metrics, queue: Queue, settings: ServiceSettings) -> Response:
    """Latencies of this process; if Redis answers, also jobs and workers of the whole service."""
    try:
        heartbeats = await queue.state.heartbeats()
        workers = [heartbeat.status for heartbeat in heartbeats]
        waiting = await queue.state.waiting_checkpoints()
        snapshot = QueueSnapshot(
            depth=await queue.state.depth(),
            limit=settings.max_queue,
            workers=workers,
            checkpoints_without_worker=len(without_worker(waiting, heartbeats)),
            worker_texts=await queue.state.worker_metrics([worker.name for worker in workers]),
            counters=await queue.state.counters(),
            outbox=await queue.state.outbox(),
            server=await queue.state.server(),
        )
    except QueueUnavailable:
        snapshot = None
    # In a thread: parsing the metrics of a worker takes about ten milliseconds.
    text = await asyncio.to_thread(render_metrics, metrics, snapshot)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
