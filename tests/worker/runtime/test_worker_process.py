"""Real worker processes that are killed, frozen, hung and cut off from Redis."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from tests.support.cli import clean_environment
from tests.support.queue_steps import LEASES, follow_events, waiting
from tests.support.requests import make_request
from tests.support.torch_free import needs_a_worker
from tests.support.waiting import async_wait_until
from tests.support.worker_process import WorkerProcess
from worker.errors import QueueUnavailable
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.redis_io import server as redis_server
from worker.settings import Settings
from worker.store.image_store import LocalImageStore

Spawn = Callable[..., WorkerProcess]


@pytest.fixture
def spawn(settings: Settings, tmp_path: Path) -> Iterator[Spawn]:
    """Start worker processes; kills them at the end and prints their logs for pytest."""
    started: list[WorkerProcess] = []

    def start(
        url: str,
        *,
        step_seconds: float = 0.01,
        while_loading: Callable[[], object] = int,
        **changes: Any,
    ) -> WorkerProcess:
        changed = settings.model_copy(update={**changes, "redis_url": SecretStr(url)})
        log = tmp_path / f"worker-{len(started)}.log"
        options = {"step_seconds": step_seconds, "while_loading": while_loading}
        started.append(WorkerProcess(changed, log, **options))
        return started[-1]

    yield start
    for number, process in enumerate(started):
        process.kill()
        sys.stdout.write(f"worker {number}\n{process.log()}")


async def until_running(queue: JobQueue, jobs: list[Job]) -> None:
    for job in jobs:
        async for event in follow_events(queue, job.id):
            if event.event == "started":
                break


async def until_retried(queue: JobQueue, count: int) -> None:
    async def is_retried() -> bool:
        return sum((await queue.state.counters()).retries.values()) >= count

    await async_wait_until(is_retried)


async def until_ready(queue: JobQueue, is_ready: bool) -> None:
    """Wait until the only worker reports this."""

    async def is_reported() -> bool:
        return [worker.is_warm for worker in await queue.state.workers()] == [is_ready]

    await async_wait_until(is_reported)


async def finished(queue: JobQueue, jobs: list[Job]) -> list[Job]:
    return list(await asyncio.gather(*(queue.wait(job.id, 120) for job in jobs)))


async def event_names(queue: JobQueue, job: Job) -> list[str]:
    names = [event.event async for event in follow_events(queue, job.id)]
    return [name for name in names if name != "progress"]


async def test_jobs_of_a_killed_worker_are_run_by_another(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    first = spawn(redis_url, step_seconds=60)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(8)]
    await until_running(queue, jobs)
    spawn(redis_url)
    first.kill()
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 2)] * 8
    for job in jobs:
        assert (await event_names(queue, job)).count("succeeded") == 1


async def test_a_worker_killed_between_storing_and_reporting_leaves_one_image(
    queue: JobQueue, redis_url: str, spawn: Spawn, redis_client: "Redis", settings: Settings,
    tmp_path: Path,
) -> None:  # fmt: skip
    go = tmp_path / "go"
    first = spawn(redis_url)
    job = await queue.admit(make_request(f"until={go}"))
    await until_running(queue, [job])
    redis_client.config_set("min-replicas-to-write", "1")  # Redis refuses all writes
    try:
        go.touch()
        store = LocalImageStore(settings.data_dir / "images")
        await async_wait_until(lambda: list(store.list_images()))
        first.kill()
    finally:
        redis_client.config_set("min-replicas-to-write", "0")
    ((stored, _),) = store.list_images()
    assert (await queue.get(job.id)).images == ()
    assert redis_client.zcard(redis_keys.IMAGES) == 0
    spawn(redis_url)
    (done,) = await finished(queue, [job])
    assert (done.status, done.attempts) == ("succeeded", 2)
    assert [name for name, _ in store.list_images()] == [stored] == [done.images[0].name]
    assert redis_client.zcard(redis_keys.IMAGES) == 1
    expected = ["queued", "started", "retrying", "started", "image", "succeeded"]
    assert await event_names(queue, job) == expected


async def test_sigterm_lets_jobs_finish_and_leaves_the_queue_alone(
    queue: JobQueue, redis_url: str, spawn: Spawn, redis_client: "Redis", tmp_path: Path
) -> None:
    go = tmp_path / "go"
    worker = spawn(redis_url, max_running=4, drain_seconds=60)
    jobs = [await queue.admit(make_request(f"until={go}", seed=seed)) for seed in range(6)]
    await until_running(queue, jobs[:4])
    worker.send(signal.SIGTERM)
    await until_ready(queue, False)
    go.touch()
    assert await asyncio.to_thread(worker.wait) == 0
    after = [await queue.get(job.id) for job in jobs]
    assert [job.status for job in after] == ["succeeded"] * 4 + ["queued"] * 2
    assert waiting(redis_client) == [job.id for job in jobs[4:]]
    assert redis_client.smembers("rq:workers") == set()


def _signal_and_keep_the_interpreter() -> None:
    """Send SIGTERM and run nothing else for a while, as imports of large libraries do."""
    library = ctypes.PyDLL(None)  # its calls do not let other threads run
    time.sleep(1)  # by now the control loop does little but wait for events
    library.kill(os.getpid(), signal.SIGTERM)
    library.usleep(300_000)


def test_sigterm_while_the_engine_keeps_the_interpreter_ends_an_idle_worker(
    redis_url: str, spawn: Spawn
) -> None:
    worker = spawn(redis_url, while_loading=_signal_and_keep_the_interpreter)
    assert worker.wait() == 0


BUSY_WITHIN_TORCH = """
import sys, torch
from tests.support.fake_worker import run_fake_worker
from worker.settings import Settings

def multiply():
    numbers = torch.rand(300, 300)
    print("busy", flush=True)
    while True:
        numbers @ numbers

run_fake_worker(Settings(), step_seconds=0.01, while_loading=multiply)
"""


@needs_a_worker
def test_a_worker_whose_engine_is_busy_within_torch_ends_well(
    redis_url: str, settings: Settings
) -> None:
    """C++ aborts a process if Python stops a thread in the middle of it."""
    variables = {"KIRAZURI_REDIS_URL": redis_url, "KIRAZURI_DATA_DIR": str(settings.data_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_WITHIN_TORCH],
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert "terminate called" not in errors
    assert process.returncode == 0, errors
    assert errors.splitlines()[-1].endswith("event=stopped")


async def test_a_short_drain_hands_back_and_the_next_worker_goes_on(
    queue: JobQueue, redis_url: str, spawn: Spawn, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    worker = spawn(redis_url, drain_seconds=0.3)
    jobs = [await queue.admit(make_request(f"until={go}", seed=seed)) for seed in range(3)]
    await until_running(queue, jobs)
    worker.send(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert [(await queue.get(job.id)).status for job in jobs] == ["queued"] * 3
    go.touch()
    spawn(redis_url)
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 3


async def test_a_restart_of_redis_interrupts_nothing(
    settings: Settings, spawn: Spawn, tmp_path: Path
) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        go = tmp_path / "go"
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        worker = spawn(server.url, lease_seconds=1)
        jobs = [await queue.admit(make_request(f"until={go}", seed=seed)) for seed in range(8)]
        await until_running(queue, jobs)
        server.process.kill()
        server.process.wait()
        await async_wait_until(lambda: "event=redis_away" in worker.log())
        go.touch()
        await asyncio.sleep(1.5)  # lets the leases expire
        server = redis_server.start(Path(folder))
        done = await finished(queue, jobs)
        assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 8
        await queue.close()
        server.stop()


async def test_a_redis_that_refuses_writes_interrupts_nothing(
    queue: JobQueue, redis_url: str, redis_client: "Redis", spawn: Spawn, settings: Settings,
    tmp_path: Path,
) -> None:  # fmt: skip
    go, store = tmp_path / "go", LocalImageStore(settings.data_dir / "images")
    spawn(redis_url, lease_seconds=1)
    jobs = [await queue.admit(make_request(f"until={go}", seed=10 * n)) for n in range(4)]
    await until_running(queue, jobs)
    redis_client.config_set("min-replicas-to-write", "1")
    try:
        go.touch()
        await async_wait_until(lambda: len(list(store.list_images())) == 4)
        await async_wait_until(lambda: not redis_client.zcount(LEASES, time.time(), "+inf"))
        assert (await queue.get(jobs[0].id)).status == "running"
    finally:
        redis_client.config_set("min-replicas-to-write", "0")
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 4


async def test_a_full_redis_drains(
    queue: JobQueue, redis_url: str, redis_client: "Redis", spawn: Spawn, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = spawn(redis_url, max_running=4)
    jobs = [await queue.admit(make_request(f"until={go}", seed=10 * n)) for n in range(12)]
    await until_running(queue, jobs[:4])
    redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(QueueUnavailable, match="maxmemory"):
            await queue.admit(make_request())
        running, queued = await queue.cancel(jobs[0].id), await queue.cancel(jobs[-1].id)
        assert (running.status, queued.status) == ("running", "cancelled")
        await async_wait_until(lambda: first.log().count("event=cancelled") == 1)
        first.kill()
        spawn(redis_url)  # registers, recovers the jobs of the dead one and takes the others
        go.touch()
        done = await finished(queue, jobs)
    finally:
        redis_client.config_set("maxmemory", "0")
    expected = ["cancelled", *["succeeded"] * 10, "cancelled"]
    assert [job.status for job in done] == expected
    assert [job.attempts for job in done[1:4]] == [2] * 3


async def test_a_worker_starts_while_redis_is_away(settings: Settings, spawn: Spawn) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        job = await queue.admit(make_request())
        server.stop()
        worker = spawn(server.url)
        await async_wait_until(lambda: "event=redis_away" in worker.log())
        assert worker.is_running
        server = redis_server.start(Path(folder))
        assert (await finished(queue, [job]))[0].status == "succeeded"
        await queue.close()
        server.stop()


async def test_a_frozen_worker_wakes_up_and_writes_nothing(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    frozen = spawn(redis_url, step_seconds=600)
    jobs = [await queue.admit(make_request(seed=seed)) for seed in range(3)]
    await until_running(queue, jobs)
    frozen.send(signal.SIGSTOP)
    spawn(redis_url)
    await until_retried(queue, 3)
    frozen.send(signal.SIGCONT)
    done = await finished(queue, jobs)
    assert [job.status for job in done] == ["succeeded"] * 3
    assert all(job.attempts >= 2 for job in done)
    await async_wait_until(lambda: frozen.log().count("event=lost") >= 3)
    assert frozen.is_running
    for job in jobs:
        assert (await event_names(queue, job)).count("succeeded") == 1


@pytest.mark.parametrize("word", ["hang", "raise"])
async def test_a_hung_or_dead_engine_ends_the_process(
    queue: JobQueue, redis_url: str, spawn: Spawn, word: str
) -> None:
    worker = spawn(redis_url, hang_seconds=1)
    job = await queue.admit(make_request(word))
    assert await asyncio.to_thread(worker.wait) == 70
    assert (await queue.get(job.id)).status == "running"


async def test_a_job_that_kills_workers_fails_and_its_neighbours_do_not(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    poison = await queue.admit(make_request("crash", steps=30))
    neighbours = [await queue.admit(make_request(seed=seed, steps=30)) for seed in range(3)]

    async def supervise() -> None:
        while True:
            await asyncio.to_thread(spawn(redis_url).wait)

    supervisor = asyncio.create_task(supervise())
    done = await finished(queue, [poison, *neighbours])
    supervisor.cancel()
    assert [job.status for job in done] == ["failed"] + ["succeeded"] * 3
    assert done[0].attempts == 3
    assert done[0].error is not None
    assert done[0].error.code == "worker_lost"


async def test_a_worker_ends_after_its_share_of_jobs_and_another_goes_on(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    worker = spawn(redis_url, recycle_after_jobs=3)
    jobs = [await queue.admit(make_request(seed=n)) for n in range(7)]
    assert await asyncio.to_thread(worker.wait) == 0
    states = [(await queue.get(job.id)).status for job in jobs]
    assert states.count("succeeded") >= 3
    assert not {"running", "failed"} & set(states)
    spawn(redis_url)
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 7


async def test_a_worker_that_stops_stepping_is_not_ready_until_it_steps_again(
    queue: JobQueue, redis_url: str, spawn: Spawn, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    spawn(redis_url, stall_seconds=0.5)
    await until_ready(queue, True)
    job = await queue.admit(make_request(f"until={go}"))
    await until_ready(queue, False)
    go.touch()
    await until_ready(queue, True)
    assert (await finished(queue, [job]))[0].status == "succeeded"
