"""Thousands of listeners at one API process, and all of them again when it was restarted."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.api_calls import parse_events, submit_job
from tests.support.api_process import ApiProcess, unframed
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.settings import Settings

JOBS = 4
MOST_BYTES_EACH = 100_000


def _room_for_files() -> int:
    """As many as this process may open, after asking for more; the server gets the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


LISTENERS = min(2000, _room_for_files() - 500)


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[ApiProcess]:
    process = ApiProcess(settings, tmp_path / "log")
    try:
        yield process
    finally:
        process.stop()


async def listen(api: ApiProcess, job_id: str, last: str = "") -> str:
    """What a stream tells until it ends or breaks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=4096)
    try:
        seen = f"Last-Event-ID: {last}\r\n" if last else ""
        writer.write(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n{seen}\r\n".encode())
        received = bytearray()
        while not received.endswith(b"0\r\n\r\n"):
            part = await reader.read(4096)
            if not part:
                break
            received += part
        return unframed(bytes(received))
    except ConnectionError:
        return unframed(bytes(received))
    finally:
        writer.close()


@pytest.mark.timeout(180)
async def test_thousands_of_listeners(
    api: ApiProcess, redis_url: str, worker: ManualWorker
) -> None:
    jobs = [submit_job(api.client) for _ in range(JOBS)]
    for job_id in jobs:
        worker.claim(job_id)
    first = asyncio.create_task(listen(api, jobs[0]))
    await asyncio.to_thread(wait_until, lambda: api.streams() == 1)
    before = api.resident_bytes()
    listeners = [asyncio.create_task(listen(api, jobs[n % JOBS])) for n in range(LISTENERS)]
    await asyncio.to_thread(wait_until, lambda: api.streams() == LISTENERS + 1, seconds=90)
    assert api.resident_bytes() - before < LISTENERS * MOST_BYTES_EACH
    # Between two waits, and after one that a busy process has missed, none waits for a moment.
    await asyncio.to_thread(wait_until, lambda: connections_of(worker.redis)[0] == 1)
    waiting, reading = connections_of(worker.redis)
    assert waiting <= 1
    assert reading <= 22
    for number in (1, 2, 3):
        for job_id in jobs:
            assert await asyncio.to_thread(worker.step, job_id, number, 3) == "ok"
    for job_id in jobs:
        worker.end(job_id, "cancelled")
    told = [parse_events(text) for text in await asyncio.gather(first, *listeners)]
    names = ["queued", "started", "progress", "progress", "progress", "cancelled"]
    assert Counter(tuple(event["event"] for event in events) for events in told) == {
        tuple(names): LISTENERS + 1
    }
    assert api.streams() == 0


def connections_of(client: "Redis") -> tuple[int, int]:
    """How many connections to Redis wait for news, and how many others there are."""
    listed = client.client_list()
    waiting = sum(entry["cmd"] == "xread" for entry in listed)
    return waiting, len(listed) - waiting - 1


async def test_listeners_go_on_where_they_were_after_a_restart(
    api: ApiProcess, redis_url: str, worker: ManualWorker
) -> None:
    job_id = submit_job(api.client)
    worker.claim(job_id)
    worker.step(job_id, 1, 4)
    listeners = [asyncio.create_task(listen(api, job_id)) for _ in range(50)]
    await asyncio.to_thread(wait_until, lambda: api.streams() == 50)
    worker.step(job_id, 2, 4)
    await asyncio.sleep(0.3)
    restarting = asyncio.create_task(asyncio.to_thread(api.restart))
    before = [parse_events(text) for text in await asyncio.gather(*listeners)]
    assert all(events for events in before)
    worker.step(job_id, 3, 4)  # while nobody can listen
    await restarting
    again = [asyncio.create_task(listen(api, job_id, events[-1]["id"])) for events in before]
    await asyncio.to_thread(wait_until, lambda: api.streams() == 50)
    worker.step(job_id, 4, 4)
    worker.end(job_id, "cancelled")
    after = [parse_events(text) for text in await asyncio.gather(*again)]
    names = ["queued", "started", *["progress"] * 4, "cancelled"]
    for events in (early + late for early, late in zip(before, after, strict=True)):
        assert [event["event"] for event in events] == names
        assert [e["data"]["step"] for e in events if e["event"] == "progress"] == [1, 2, 3, 4]
