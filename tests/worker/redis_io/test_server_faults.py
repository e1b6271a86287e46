"""Servers that may lose jobs or have no room for them, and what API and workers do then."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.support.requests import make_request
from tests.support.run_worker import RunWorker, await_heartbeats
from tests.support.waiting import async_wait_until
from worker.errors import QueueUnavailable
from worker.queue.job_queue import JobQueue
from worker.queue.worker_queue import WorkerQueue
from worker.redis_io import server as redis_server
from worker.redis_io.client import is_outage
from worker.redis_io.server_faults import read_state
from worker.settings import Settings

VOLATILE = {
    "eviction": ("maxmemory-policy", "allkeys-lru"),
    "append_only_file": ("appendonly", "no"),
}
"""Settings of Redis with which it may lose jobs, by their fault."""


@pytest.fixture(scope="module")
def own_url() -> Iterator[str]:
    """A server whose settings the tests change."""
    with TemporaryDirectory(prefix="kirazuri-") as folder:
        server = redis_server.start(Path(folder))
        yield server.url
        server.stop()


@pytest.fixture
def redis_url(own_url: str) -> Iterator[str]:
    """The same server, empty and with its usual settings."""
    with Redis.from_url(own_url, decode_responses=True) as client:
        client.flushall()
        usual = {name: client.config_get(name)[name] for name, _ in (*VOLATILE.values(), *OTHERS)}
        yield own_url
        for name, value in usual.items():
            client.config_set(name, value)


OTHERS = [("maxmemory", "0"), ("min-replicas-to-write", "0")]


async def faults_of(queue: JobQueue) -> dict[str, str]:
    return dict((await queue.state.server()).faults)


@pytest.mark.parametrize("fault", VOLATILE)
async def test_a_server_that_may_lose_jobs_gets_none(
    fault: str, queue: JobQueue, redis_client: "Redis", run_worker: RunWorker
) -> None:
    assert await faults_of(queue) == {}
    name, value = VOLATILE[fault]
    job = await queue.admit(make_request(), idempotency_key="key")
    usual = redis_client.config_get(name)[name]
    redis_client.config_set(name, value)
    with pytest.raises(QueueUnavailable, match=name):
        await queue.admit(make_request())
    assert (await queue.admit(make_request(), idempotency_key="key")).id == job.id
    found = await faults_of(queue)
    assert found.keys() == {fault}
    assert name in found[fault]
    with run_worker() as worker:
        await async_wait_until(lambda: worker.engine.is_warm)
        await await_heartbeats(queue)
        assert (await queue.get(job.id)).status == "queued"
        assert [status.is_warm for status in await queue.state.workers()] == [False]
        redis_client.config_set(name, usual or "")
        assert (await queue.wait(job.id, 60)).status == "succeeded"


@pytest.mark.parametrize("fault", VOLATILE)
async def test_a_setting_allows_it(
    fault: str, redis_url: str, settings: Settings, redis_client: "Redis", run_worker: RunWorker
) -> None:
    redis_client.config_set(*VOLATILE[fault])
    changes = {"allow_volatile_redis": True}
    queue = JobQueue(redis_url, settings.model_copy(update=changes))
    job = await queue.admit(make_request())
    with run_worker(changes=changes):
        assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert (await faults_of(queue)).keys() == {fault}  # metrics still show it
    await queue.close()


async def test_what_runs_ends_in_a_server_that_became_forgetful(
    queue: JobQueue, redis_client: "Redis", run_worker: RunWorker, tmp_path: Path
) -> None:
    job = await queue.admit(make_request(f"until={tmp_path / 'go'}"))
    with run_worker() as worker:
        await async_wait_until(lambda: worker.slots)
        redis_client.config_set("appendonly", "no")
        (tmp_path / "go").touch()
        assert (await queue.wait(job.id, 60)).status == "succeeded"


def is_fit(worker_queue: WorkerQueue) -> bool:
    """Whether a worker claims jobs from the server."""
    with worker_queue.redis.pipeline(transaction=False) as pipeline:
        worker_queue.check_server(pipeline)
        return worker_queue.is_server_fit(pipeline.execute()[-1])


async def test_a_nearly_full_server_gets_no_jobs(
    queue: JobQueue, redis_client: "Redis", run_worker: RunWorker, worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    used = redis_client.info("memory")["used_memory"]
    redis_client.config_set("maxmemory", int(used / 0.9))
    with pytest.raises(QueueUnavailable, match="% of its maxmemory are in use"):
        await queue.admit(make_request())
    assert 0.8 < (await queue.state.server()).used_memory < 1
    assert is_fit(worker_queue)
    with run_worker():
        assert (await queue.wait(job.id, 60)).status == "succeeded"
    redis_client.config_set("maxmemory", 2 * used)
    assert (await queue.admit(make_request())).status == "queued"


async def test_a_server_that_refuses_writes(
    queue: JobQueue, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    redis_client.config_set("min-replicas-to-write", "1")
    assert "NOREPLICAS" in (await faults_of(queue))["writes"]
    with pytest.raises(ResponseError, match="NOREPLICAS"):
        is_fit(worker_queue)
    redis_client.config_set("min-replicas-to-write", "0")
    assert await faults_of(queue) == {}
    assert is_fit(worker_queue)


@pytest.fixture
async def restricted(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> AsyncIterator[JobQueue]:
    """The queue as a user sees it who may not ask for the server's settings."""
    redis_client.acl_setuser(
        "limited", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"],
        categories=["+@all"], commands=["-info", "-config"],
    )  # fmt: skip
    queue = JobQueue(redis_url.replace("unix://", "unix://limited:secret@"), settings)
    yield queue
    await queue.close()
    redis_client.acl_deluser("limited")


async def test_what_is_unknown_is_reported_and_refuses_nothing(restricted: JobQueue) -> None:
    assert (await faults_of(restricted)).keys() == {"unknown"}
    assert (await restricted.admit(make_request())).status == "queued"


def test_old_servers_and_clusters_are_named() -> None:
    for message, code in (
        ("Error compiling script (new function): user_script:1: unexpected symbol", "version"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "cluster"),
    ):
        assert is_outage(ResponseError(message))
        (fault,) = read_state(ResponseError(message)).faults
        assert fault.code == code


async def test_faults_are_logged_when_they_come_and_go(
    queue: JobQueue, redis_client: "Redis", caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    redis_client.config_set("appendonly", "no")
    for _ in range(2):
        await queue.state.server()
    redis_client.config_set("appendonly", "yes")
    for _ in range(2):
        await queue.state.server()
    events = [record.getMessage() for record in caplog.records]
    assert [line.split(" reason=")[0] for line in events if "event=redis_" in line] == [
        "event=redis_unfit fault=append_only_file",
        "event=redis_fit fault=append_only_file",
    ]
