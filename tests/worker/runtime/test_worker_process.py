"""Real worker processes that are killed, stopped, hung and cut off from Redis."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from tests.support.requests import make_request
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.redis_io import server as redis_server
from worker.settings import Settings
from worker.store.image_store import LocalImageStore

RECOVERY_SECONDS = 2 + 0.3 + 2 + 6
"""Lease, maintenance, whole seconds of RQ's scores, and a busy machine."""

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(settings: Settings) -> Iterator[Spawn]:
    """Start worker processes; all are killed in the end, their logs shown by pytest."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        url: str, *, step_seconds: float = 0.05, **changes: object
    ) -> "subprocess.Popen[bytes]":
        values = settings.model_dump(exclude_none=True) | changes | {"redis_url": url}
        variables = {f"KIRAZURI_{name.upper()}": str(value) for name, value in values.items()}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.fake_worker",
                "--step-seconds",
                str(step_seconds),
            ],
            env={"PATH": "", "PYTHONPATH": str(Path.cwd())} | variables,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


async def until_running(queue: JobQueue, jobs: list[Job]) -> None:
    for job in jobs:
        async for event in queue.events(job.id):
            if event.event == "started":
                break


async def until_warm(queue: JobQueue, count: int) -> None:
    for _ in range(500):
        if sum(worker.is_warm for worker in await queue.state.workers()) >= count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} warm workers")


async def until_retried(queue: JobQueue, count: int) -> None:
    for _ in range(500):
        if (await queue.state.counters()).retries["worker_lost"] >= count:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} retries")


async def finished(queue: JobQueue, jobs: list[Job], seconds: float = 25) -> list[Job]:
    return list(await asyncio.gather(*(queue.wait(job.id, seconds) for job in jobs)))


async def test_jobs_of_a_killed_worker_are_run_by_another(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    first = spawn(redis_url, step_seconds=1)
    jobs = [await queue.admit(make_request(seed=seed, steps=50)) for seed in range(8)]
    await until_running(queue, jobs)
    spawn(redis_url, step_seconds=0.01)
    await until_warm(queue, 2)
    first.kill()
    killed = time.monotonic()
    waiting = asyncio.create_task(finished(queue, jobs))
    await until_retried(queue, 8)
    assert time.monotonic() - killed < RECOVERY_SECONDS
    done = await waiting
    assert [job.status for job in done] == ["succeeded"] * 8
    assert all(job.attempts >= 2 for job in done)
    for job in jobs:
        names = [event.event async for event in queue.events(job.id)]
        assert names.count("succeeded") == 1


async def test_a_worker_killed_between_storing_and_telling_leaves_one_picture(
    queue: JobQueue, redis_url: str, spawn: Spawn, redis_client: "Redis", settings: Settings
) -> None:
    first = spawn(redis_url, step_seconds=0.2)
    job = await queue.admit(make_request(steps=20))
    await until_running(queue, [job])
    spawn(redis_url, step_seconds=0.01)
    await until_warm(queue, 2)
    redis_client.client_pause(20_000, all=False)  # who writes has to wait
    try:
        store = LocalImageStore(settings.data_dir / "images")
        for _ in range(200):
            if stored := list(store.list_images()):
                break
            await asyncio.sleep(0.05)
        first.kill()
        first.wait()
    finally:
        redis_client.client_unpause()
    assert len(stored) == 1
    assert (await queue.get(job.id)).images == ()
    assert redis_client.zcard(redis_keys.IMAGES) == 0
    (done,) = await finished(queue, [job])
    assert (done.status, done.attempts) == ("succeeded", 2)
    assert [name for name, _ in store.list_images()] == [stored[0][0]] == [done.images[0].name]
    assert redis_client.zcard(redis_keys.IMAGES) == 1
    told = [event.event async for event in queue.events(job.id) if event.event != "progress"]
    assert told == ["queued", "started", "retrying", "started", "image", "succeeded"]


async def test_sigterm_lets_jobs_finish_and_leaves_the_queue_alone(
    queue: JobQueue, redis_url: str, spawn: Spawn, redis_client: "Redis"
) -> None:
    worker = spawn(redis_url, max_running=4)
    jobs = [await queue.admit(make_request(seed=seed, steps=20)) for seed in range(6)]
    await until_running(queue, jobs[:4])
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 15) == 0
    after = [await queue.get(job.id) for job in jobs]
    assert [job.status for job in after] == ["succeeded"] * 4 + ["queued"] * 2
    assert redis_client.lrange(rq_layout.list_key(), 0, -1) == [job.id.encode() for job in jobs[4:]]
    assert redis_client.smembers("rq:workers") == set()


async def test_a_short_drain_hands_back_and_the_next_worker_goes_on(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    worker = spawn(redis_url, drain_seconds=0.3)
    jobs = [await queue.admit(make_request(seed=seed, steps=400)) for seed in range(3)]
    await until_running(queue, jobs)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 15) == 0
    assert time.monotonic() - began < 8  # the jobs would have taken longer to finish
    spawn(redis_url, step_seconds=0.001)
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 3


async def test_a_restart_of_redis_interrupts_nothing(settings: Settings, spawn: Spawn) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        spawn(server.url)
        jobs = [await queue.admit(make_request(seed=seed, steps=80)) for seed in range(8)]
        await until_running(queue, jobs)
        server.process.kill()
        server.process.wait()
        await asyncio.sleep(3)  # longer than a lease
        server = redis_server.start(Path(folder))
        done = await finished(queue, jobs)
        assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 8
        await queue.close()
        server.stop()


async def test_a_full_redis_interrupts_nothing(
    queue: JobQueue, redis_url: str, redis_client: "Redis", spawn: Spawn
) -> None:
    spawn(redis_url)
    jobs = [await queue.admit(make_request(seed=seed, steps=80)) for seed in range(4)]
    await until_running(queue, jobs)
    redis_client.config_set("maxmemory", "1")
    try:
        await asyncio.sleep(3)  # longer than a lease, and than the jobs take
        assert (await queue.get(jobs[0].id)).status == "running"
    finally:
        redis_client.config_set("maxmemory", "0")
    done = await finished(queue, jobs)
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 4


async def test_a_worker_boots_while_redis_is_away(settings: Settings, spawn: Spawn) -> None:
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        queue = JobQueue(server.url, settings)
        job = await queue.admit(make_request())
        server.stop()
        worker = spawn(server.url)
        await asyncio.sleep(3)
        assert worker.poll() is None
        server = redis_server.start(Path(folder))
        assert (await finished(queue, [job]))[0].status == "succeeded"
        await queue.close()
        server.stop()


async def test_a_frozen_worker_wakes_up_and_writes_nothing(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    zombie = spawn(redis_url, step_seconds=1)
    jobs = [await queue.admit(make_request(seed=seed, steps=50)) for seed in range(3)]
    await until_running(queue, jobs)
    spawn(redis_url, step_seconds=0.01)
    await until_warm(queue, 2)
    zombie.send_signal(signal.SIGSTOP)
    await until_retried(queue, 3)
    zombie.send_signal(signal.SIGCONT)
    done = await finished(queue, jobs)
    assert [job.status for job in done] == ["succeeded"] * 3
    assert all(job.attempts >= 2 for job in done)
    assert zombie.poll() is None
    for job in jobs:
        names = [event.event async for event in queue.events(job.id)]
        assert names.count("succeeded") == 1


@pytest.mark.parametrize("word", ["hang", "raise"])
async def test_a_hung_or_dead_engine_ends_the_process(
    queue: JobQueue, redis_url: str, spawn: Spawn, word: str
) -> None:
    worker = spawn(redis_url, hang_seconds=1)
    job = await queue.admit(make_request(word))
    assert await asyncio.to_thread(worker.wait, 15) == 70
    assert (await queue.get(job.id)).status == "running"


async def test_a_job_that_kills_workers_fails_and_its_neighbours_do_not(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    poison = await queue.admit(make_request("crash", steps=30))
    neighbours = [await queue.admit(make_request(seed=seed, steps=30)) for seed in range(3)]

    async def supervise() -> None:
        while True:
            worker = spawn(redis_url, step_seconds=0.02)
            await asyncio.to_thread(worker.wait)

    supervisor = asyncio.create_task(supervise())
    done = await finished(queue, [poison, *neighbours], 50)
    supervisor.cancel()
    assert [job.status for job in done] == ["failed"] + ["succeeded"] * 3
    assert done[0].attempts == 3
    assert done[0].error is not None
    assert done[0].error.code == "worker_lost"


async def test_a_worker_ends_after_its_share_of_jobs_and_another_goes_on(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    worker = spawn(redis_url, recycle_after_jobs=3)
    jobs = [await queue.admit(make_request(steps=4, seed=n)) for n in range(7)]
    assert worker.wait(25) == 0
    states = [(await queue.get(job.id)).status for job in jobs]
    assert states.count("succeeded") >= 3
    assert not {"running", "failed"} & set(states)
    spawn(redis_url)
    done = await finished(queue, jobs)
    assert [job.status for job in done] == ["succeeded"] * 7
    assert [job.attempts for job in done] == [1] * 7


async def test_a_worker_that_stops_stepping_is_not_ready_until_it_steps_again(
    queue: JobQueue, redis_url: str, spawn: Spawn
) -> None:
    spawn(redis_url, step_seconds=3, stall_seconds=0.5)
    await until_warm(queue, 1)
    job = await queue.admit(make_request(steps=1))
    await until_running(queue, [job])
    seen: list[bool] = []
    for _ in range(200):
        (worker,) = await queue.state.workers()
        seen.append(worker.is_warm)
        if False in seen and worker.is_warm:
            break
        await asyncio.sleep(0.05)
    assert False in seen
    assert seen[-1]
    assert (await queue.wait(job.id, 5)).status == "succeeded"
