"""What this service relies on in RQ, compared with the installed version."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import FailedJobRegistry, StartedJobRegistry, clean_registries
from rq.scripts import acquire_or_refresh_lock, release_lock
from rq.suspension import is_suspended
from rq.version import VERSION

from worker.queue.layout import rq_layout
from worker.queue.scripts import lua_script
from worker.runtime import rq_adapter

USED_MEMBERS: list[tuple[Callable[..., Any], list[str]]] = [
    (Queue.lmove, ["connection", "queue_key", "timeout"]),
    (Queue.acquire_maintenance_lock, ["self"]),
    (Queue.release_maintenance_lock, ["self"]),
    (Execution.create, ["job", "ttl", "pipeline", "worker_name"]),
    (Execution.heartbeat, ["self", "started_job_registry", "ttl", "pipeline"]),
    (Job.prepare_for_execution, ["self", "worker_name", "pipeline"]),
    (Execution.delete, ["self", "job", "pipeline"]),
    (SimpleWorker.heartbeat, ["self", "timeout", "pipeline"]),
    (SimpleWorker.set_state, ["self", "state", "pipeline"]),
    (SimpleWorker.serialize, ["self"]),
    (SimpleWorker.register_death, ["self"]),
    (SimpleWorker._set_connection, ["self", "connection"]),
    (IntermediateQueue.should_be_cleaned_up, ["self", "job_id"]),
    (IntermediateQueue.cleanup, ["self", "worker", "queue"]),
    (StartedJobRegistry.cleanup, ["self", "timestamp", "exception_handlers"]),
    (worker_registration.register, ["worker", "pipeline"]),
    (worker_registration.clean_worker_registry, ["queue"]),
    (is_suspended, ["connection", "worker"]),
    (acquire_or_refresh_lock, ["connection", "lock_key", "owner_token", "ttl"]),
    (release_lock, ["connection", "lock_key", "owner_token"]),
]


@pytest.fixture
def rq_queue(redis_client: "Redis") -> Queue:
    return Queue(rq_layout.QUEUE, connection=redis_client, serializer="json")


@pytest.fixture
def job(redis_client: "Redis") -> Job:
    """A queued job, written as `admit` does."""
    redis_client.hset(rq_layout.job_key("x"), items=rq_layout.job_fields("x"))
    redis_client.rpush(rq_layout.list_key(), "x")
    return Job.fetch("x", connection=redis_client, serializer="json")


def lease(client: "Redis", job: Job) -> Execution:
    """Pop and lease the job as the worker does."""
    client.lrem(rq_layout.list_key(), 0, job.id)
    with client.pipeline() as pipeline:
        execution = Execution.create(job, 60, pipeline=pipeline, worker_name="w")
        job.prepare_for_execution("w", pipeline=pipeline)
        pipeline.execute()
    return execution


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
    first_seen = f"{keys['rq_intermediate']}{rq_layout.FIRST_SEEN_INFIX}x"
    assert first_seen == rq_queue.intermediate_queue.get_first_seen_key("x")


def test_a_lease_names_job_and_execution(redis_client: "Redis", job: Job) -> None:
    execution = lease(redis_client, job)
    members: Any = redis_client.zrange(rq_layout.leases_key(), 0, -1)
    (member,) = members
    assert member.decode() == rq_layout.lease_member("x", execution.id)
    assert rq_layout.job_id_of(member) == "x"
    score: Any = redis_client.zscore(rq_layout.leases_key(), member)
    assert score == pytest.approx(time.time() + 60, abs=30)


def test_the_first_reply_of_a_heartbeat_tells_whether_the_worker_was_known(
    redis_client: "Redis",
) -> None:
    worker = SimpleWorker([rq_layout.QUEUE], connection=redis_client, serializer="json")

    def beat() -> bool:
        with redis_client.pipeline(transaction=False) as pipeline:
            worker.heartbeat(60, pipeline=pipeline)
            return bool(pipeline.execute()[0] == 1)

    assert beat()
    assert not beat()
    redis_client.delete(worker.key)
    assert beat()


def test_a_pop_waits_for_fractions_of_a_second(redis_client: "Redis", job: Job) -> None:
    """A timeout that was rounded down to 0 would wait until the client gives up."""
    wait: Any = 0.05
    assert Queue.lmove(redis_client, rq_layout.list_key(), wait) == (rq_layout.list_key(), b"x")
    assert redis_client.lrange(rq_layout.intermediate_key(), 0, -1) == [b"x"]
    with pytest.raises(DequeueTimeout):
        Queue.lmove(redis_client, rq_layout.list_key(), wait)


def test_cleaning_the_registries_puts_a_lost_job_first(
    redis_client: "Redis", rq_queue: Queue, job: Job
) -> None:
    execution = lease(redis_client, job)
    redis_client.rpush(rq_layout.list_key(), "waiting")
    clean_registries(rq_queue)
    assert redis_client.lrange(rq_layout.list_key(), 0, -1) == [b"waiting"], "the lease is alive"
    member = rq_layout.lease_member("x", execution.id)
    redis_client.zadd(rq_layout.leases_key(), {member: time.time() - 1})
    clean_registries(rq_queue)
    assert redis_client.lrange(rq_layout.list_key(), 0, -1) == [b"x", b"waiting"]
    assert redis_client.zcard(rq_layout.leases_key()) == 0
    failed = FailedJobRegistry(queue=rq_queue)
    assert failed.get_job_count(cleanup=False) == 0
    assert redis_client.exists(rq_layout.job_key("x"))


def test_rqs_loop_and_job_functions_are_not_used() -> None:
    source = inspect.getsource(rq_adapter)
    for member in (".work(", "perform", ".func", "death_penalty", "bootstrap(", "pickle"):
        assert member not in source
