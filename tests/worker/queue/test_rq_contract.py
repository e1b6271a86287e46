"""What this service relies on in RQ, compared with the installed version."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker, worker_registration
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.registry import clean_registries
from rq.suspension import WORKERS_SUSPENDED
from rq.version import VERSION

from tests.support.queue_steps import take, take_next
from tests.support.requests import make_request
from worker.queue.job_queue import JobQueue
from worker.queue.layout import rq_layout
from worker.queue.scripts import lua_script
from worker.queue.worker_queue import WorkerQueue
from worker.runtime import rq_adapter

USED_MEMBERS: list[tuple[Callable[..., Any], list[str]]] = [
    (Execution, ["id", "job_id", "connection", "worker_name"]),
    (Execution.save, ["self", "ttl", "pipeline"]),
    (ExecutionRegistry.add, ["self", "execution", "ttl", "pipeline", "xx"]),
    (Execution.heartbeat, ["self", "started_job_registry", "ttl", "pipeline"]),
    (Execution.delete, ["self", "job", "pipeline"]),
    (SimpleWorker.heartbeat, ["self", "timeout", "pipeline"]),
    (SimpleWorker.set_state, ["self", "state", "pipeline"]),
    (SimpleWorker.serialize, ["self"]),
    (SimpleWorker._set_connection, ["self", "connection"]),
    (worker_registration.register, ["worker", "pipeline"]),
    (worker_registration.unregister, ["worker", "pipeline"]),
]


@pytest.fixture
def rq_queue(redis_client: "Redis") -> Queue:
    return Queue(rq_layout.QUEUE, connection=redis_client, serializer="json")


def test_the_version_is_the_tested_one() -> None:
    assert VERSION.startswith("3.0.")


def test_the_used_members_have_these_parameters() -> None:
    changed = {
        member.__qualname__: found
        for member, expected in USED_MEMBERS
        if (found := list(inspect.signature(member).parameters)) != expected
    }
    assert changed == {}


def test_the_scripts_use_rqs_own_keys(rq_queue: Queue) -> None:
    keys = lua_script.script_keys("x")
    assert keys["rq_list"] == rq_queue.key
    assert keys["rq_intermediate"] == rq_queue.intermediate_queue_key
    assert keys["rq_leases"] == rq_queue.started_job_registry.key
    assert keys["rq_job"] == Job.key_for("x")
    assert keys["rq_queues"] == Queue.redis_queues_keys
    assert rq_layout.WORKERS_KEY == worker_registration.REDIS_WORKER_KEYS
    by_queue = worker_registration.WORKERS_BY_QUEUE_KEY
    assert rq_layout.workers_key("some") == by_queue % "some"
    assert rq_layout.SUSPENDED_KEY == WORKERS_SUSPENDED
    first_seen = f"{keys['rq_intermediate']}{rq_layout.FIRST_SEEN_INFIX}x"
    assert first_seen == rq_queue.intermediate_queue.get_first_seen_key("x")


def test_the_scripts_use_rqs_own_fields_of_a_job() -> None:
    assert {"status", "worker_name", "origin"} <= set(rq_layout.job_fields()[::2])
    assert (JobStatus.QUEUED.value, JobStatus.STARTED.value) == ("queued", "started")


def test_a_lease_names_job_and_execution(redis_client: "Redis") -> None:
    execution = Execution("token", "x", redis_client)
    assert execution.composite_key == rq_layout.lease_member("x", "token")


async def test_rqs_own_cleanup_returns_a_job_that_the_scripts_leased(
    queue: JobQueue, redis_client: "Redis", rq_queue: Queue, worker_queue: WorkerQueue
) -> None:
    """Workers of older releases run it, beside workers of this one."""
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t")
    clean_registries(rq_queue)
    assert redis_client.llen(rq_layout.list_key()) == 0, "the lease is alive"
    member = rq_layout.lease_member(job.id, "t")
    redis_client.zadd(rq_layout.leases_key(), {member: time.time() - 1})
    clean_registries(rq_queue)
    assert redis_client.lrange(rq_layout.list_key(), 0, -1) == [job.id.encode()]
    (claim,) = take_next(worker_queue)
    assert (claim.job_id, claim.attempt) == (job.id, 2)
    assert redis_client.llen(rq_layout.list_key()) == 0


def test_rqs_loop_and_job_functions_are_not_used() -> None:
    source = inspect.getsource(rq_adapter)
    for member in (".work(", "perform", ".func", "death_penalty", "bootstrap(", "pickle"):
        assert member not in source
