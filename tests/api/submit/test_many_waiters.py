"""Many clients that wait for their jobs at once, on few connections to Redis."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import pytest

from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import async_wait_until
from worker.queue.layout.redis_keys import QUEUED
from worker.settings import Settings

WAITERS = 300


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    changes = {"max_wait_seconds": 600, "max_queue": WAITERS, "max_connections": 2 * WAITERS}
    return settings.model_copy(update=changes)


@pytest.fixture
def server(settings: Settings, redis_url: str) -> Iterator[ApiServer]:
    with ApiServer(settings) as running:
        yield running


async def call(server: ApiServer, seconds: int, number: int) -> tuple[int, str]:
    """Submit a job and wait for it; the status code and the job's id or the problem."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps({"prompt": f"1girl, smile, {number}", "steps": 1}).encode()
    writer.write(
        f"POST /generate HTTP/1.1\r\nHost: {address.netloc}\r\nPrefer: wait={seconds}\r\n"
        "Connection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    job = json.loads(answer)
    return int(head.split(b" ", 2)[1]), job.get("id") or job["detail"]


def finish_all(worker: ManualWorker, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        worker.claim(job_id)
        worker.finish(job_id, b"picture")


async def test_every_waiter_gets_its_job(server: ApiServer, worker: ManualWorker) -> None:
    calls = [asyncio.create_task(call(server, 600, number)) for number in range(WAITERS)]
    await async_wait_until(lambda: worker.redis.zcard(QUEUED) == WAITERS)
    ids = worker.queued_ids()
    await asyncio.to_thread(finish_all, worker, ids)
    answers = await asyncio.gather(*calls)
    assert [status for status, _ in answers] == [200] * WAITERS
    assert {job_id for _, job_id in answers} == set(ids)


async def test_after_its_time_a_waiter_gets_its_unfinished_job(
    server: ApiServer, worker: ManualWorker
) -> None:
    answers = await asyncio.gather(*(call(server, 1, number) for number in range(WAITERS)))
    assert [status for status, _ in answers] == [202] * WAITERS
    assert {job_id for _, job_id in answers} == set(worker.queued_ids())
