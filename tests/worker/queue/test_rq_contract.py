"""What the worker uses of RQ inside, held against the installed version."""

import inspect
from typing import Any

import pytest
from rq import Queue, SimpleWorker, worker_registration
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.scripts import acquire_or_refresh_lock, release_lock
from rq.version import VERSION

from worker.queue import record
from worker.runtime import rq_adapter


def test_the_version_is_the_one_that_was_read() -> None:
    assert VERSION.startswith("3.0.")


@pytest.mark.parametrize(
    ("member", "parameters"),
    [
        (Queue.lmove, ["connection", "queue_key", "timeout"]),
        (Queue.acquire_maintenance_lock, ["self"]),
        (Queue.release_maintenance_lock, ["self"]),
        (Execution.create, ["job", "ttl", "pipeline", "worker_name"]),
        (Execution.heartbeat, ["self", "started_job_registry", "ttl", "pipeline"]),
        (Job.prepare_for_execution, ["self", "worker_name", "pipeline"]),
        (SimpleWorker.cleanup_execution, ["self", "job", "pipeline", "execution"]),
        (SimpleWorker.heartbeat, ["self", "timeout", "pipeline"]),
        (SimpleWorker.get_heartbeat_ttl, ["self", "job", "working_time"]),
        (SimpleWorker.set_state, ["self", "state", "pipeline"]),
        (SimpleWorker.request_stop, ["self", "signum", "frame"]),
        (SimpleWorker._set_connection, ["self", "connection"]),
        (IntermediateQueue.should_be_cleaned_up, ["self", "job_id"]),
        (IntermediateQueue.cleanup, ["self", "worker", "queue"]),
        (StartedJobRegistry.cleanup, ["self", "timestamp", "exception_handlers"]),
        (worker_registration.register, ["worker", "pipeline"]),
        (acquire_or_refresh_lock, ["connection", "lock_key", "owner_token", "ttl"]),
        (release_lock, ["connection", "lock_key", "owner_token"]),
    ],
)
def test_the_members_that_are_used_have_these_parameters(
    member: Any, parameters: list[str]
) -> None:
    assert list(inspect.signature(member).parameters) == parameters


def test_the_scripts_write_rqs_own_keys(redis_client: Any) -> None:
    queue = Queue(record.RQ_QUEUE, connection=redis_client)
    keys = record.script_keys("x")
    assert keys[6] == queue.key
    assert keys[7] == queue.intermediate_queue_key
    assert keys[8] == queue.started_job_registry.key
    assert keys[9] == Job.key_for("x")
    first_seen = f"{keys[7]}:first_seen:x"  # as the claim script spells it
    assert first_seen == queue.intermediate_queue.get_first_seen_key("x")
    assert Queue.redis_queues_keys == "rq:queues"


def test_rqs_loop_and_job_functions_are_never_reached() -> None:
    source = inspect.getsource(rq_adapter)
    for member in (".work(", "perform", ".func", "death_penalty", "bootstrap(", "pickle"):
        assert member not in source
