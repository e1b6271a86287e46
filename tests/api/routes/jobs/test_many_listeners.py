"""Hundreds of listeners at one API process, before and after a restart."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.support.api_calls import parse_events, submit_job
from tests.support.api_process import ApiProcess, unframed
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import async_wait_until
from worker.settings import Settings

JOBS = 4
LISTENERS = 400
MAX_BYTES_EACH = 100_000


@pytest.fixture(scope="module")
def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    process = ApiProcess(settings, tmp_path_factory.mktemp("api") / "log")
    try:
        yield process
    finally:
        process.stop()


class Listener:
    """Reads the event stream of a job until it ends or breaks."""

    def __init__(self, api: ApiProcess, job_id: str, last_event_id: str = "") -> None:
        self._api = api
        self._path = f"/jobs/{job_id}/events"
        self._header = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        self._received = bytearray()
        self.task = asyncio.create_task(self._read())

    @property
    def text(self) -> str:
        return unframed(bytes(self._received))

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._api.port, limit=4096)
        try:
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: x\r\n{self._header}\r\n".encode())
            while not self._received.endswith(b"0\r\n\r\n"):
                part = await reader.read(4096)
                if not part:
                    break
                self._received += part
        except ConnectionError:
            pass
        finally:
            writer.close()


async def wait_for_streams(api: ApiProcess, count: int) -> None:
    await async_wait_until(lambda: asyncio.to_thread(lambda: api.streams() == count))


async def test_hundreds_of_listeners_share_memory_and_connections(
    api: ApiProcess, redis_url: str, worker: ManualWorker
) -> None:
    jobs = [submit_job(api.client) for _ in range(JOBS)]
    for job_id in jobs:
        worker.claim(job_id)
    first = Listener(api, jobs[0])
    await wait_for_streams(api, 1)
    before = api.resident_bytes()
    listeners = [Listener(api, jobs[number % JOBS]) for number in range(LISTENERS)]
    await wait_for_streams(api, LISTENERS + 1)
    assert api.resident_bytes() - before < LISTENERS * MAX_BYTES_EACH
    # Between two reads of the process no connection waits.
    await async_wait_until(lambda: redis_connections(worker.redis)[0] == 1)
    waiting, others = redis_connections(worker.redis)
    assert waiting <= 1
    assert others <= 22
    for number in (1, 2, 3):
        for job_id in jobs:
            assert await asyncio.to_thread(worker.step, job_id, number, 3) == "ok"
    for job_id in jobs:
        worker.end(job_id, "cancelled")
    await asyncio.gather(*(listener.task for listener in (first, *listeners)))
    names = ("queued", "started", "progress", "progress", "progress", "cancelled")
    received = [parse_events(listener.text) for listener in (first, *listeners)]
    assert Counter(tuple(event["event"] for event in events) for events in received) == {
        names: LISTENERS + 1
    }
    await wait_for_streams(api, 0)


def redis_connections(client: "Redis") -> tuple[int, int]:
    """The number of connections that wait for events, and of the others."""
    listed = client.client_list()
    waiting = sum(entry["cmd"] == "xread" for entry in listed)
    return waiting, len(listed) - waiting - 1


async def test_listeners_continue_after_a_restart(
    api: ApiProcess, redis_url: str, worker: ManualWorker
) -> None:
    job_id = submit_job(api.client)
    worker.claim(job_id)
    worker.step(job_id, 1, 4)
    listeners = [Listener(api, job_id) for _ in range(20)]
    worker.step(job_id, 2, 4)
    await async_wait_until(lambda: all('"step":2' in each.text for each in listeners))
    restarting = asyncio.create_task(asyncio.to_thread(api.restart))
    await asyncio.gather(*(listener.task for listener in listeners))
    before = [parse_events(listener.text) for listener in listeners]
    worker.step(job_id, 3, 4)  # while the API is down
    await restarting
    again = [Listener(api, job_id, events[-1]["id"]) for events in before]
    await wait_for_streams(api, len(again))
    worker.step(job_id, 4, 4)
    worker.end(job_id, "cancelled")
    await asyncio.gather(*(listener.task for listener in again))
    names = ["queued", "started", *["progress"] * 4, "cancelled"]
    for earlier, later in zip(before, again, strict=True):
        events = earlier + parse_events(later.text)
        assert [event["event"] for event in events] == names
        assert [e["data"]["step"] for e in events if e["event"] == "progress"] == [1, 2, 3, 4]
