"""What a worker writes for RQ, with the real RQ and the real Redis."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Worker

from worker.queue.layout import rq_layout
from worker.runtime.rq_adapter import Lease, RqAdapter

LEASES = rq_layout.leases_key()


@pytest.fixture
def make_adapter(redis_client: "Redis") -> Callable[[], RqAdapter]:
    return lambda: RqAdapter(redis_client, lease_seconds=5)


@pytest.fixture
def adapter(make_adapter: Callable[[], RqAdapter]) -> RqAdapter:
    return make_adapter()


def lease(client: "Redis", adapter: RqAdapter, job_id: str, token: str = "t") -> Lease:
    """A lease as the claim script gives it."""
    client.zadd(LEASES, {rq_layout.lease_member(job_id, token): time.time() + 1})
    return adapter.lease(rq_layout.QUEUE, job_id, token)


def heartbeat(client: "Redis", adapter: RqAdapter, *leases: Lease) -> None:
    with client.pipeline(transaction=False) as pipeline:
        adapter.add_heartbeat(pipeline, leases)
        pipeline.execute()


def end(client: "Redis", adapter: RqAdapter, lease: Lease) -> None:
    with client.pipeline(transaction=False) as pipeline:
        adapter.end_lease(pipeline, lease)
        pipeline.execute()


def workers(client: "Redis") -> list[Any]:
    """The workers as `rq info` reads them."""
    return Worker.all(connection=client)


def test_a_lease_is_shown_and_renewed_and_leaves_nothing_behind(
    redis_client: "Redis", adapter: RqAdapter
) -> None:
    leases = [lease(redis_client, adapter, job_id) for job_id in ("a", "b")]
    heartbeat(redis_client, adapter, *leases)
    found: Any = redis_client.zrange(LEASES, 0, -1, withscores=True)
    assert [score for _, score in found] == pytest.approx([time.time() + 5] * 2, abs=3.5)
    (worker,) = workers(redis_client)
    assert (worker.name, worker.get_state()) == (adapter.name, "busy")
    assert worker.queue_names() == list(rq_layout.QUEUES)
    assert {run.job_id for run in worker.get_current_executions()} == {"a", "b"}
    end(redis_client, adapter, leases[0])
    assert redis_client.zcard(LEASES) == 1
    end(redis_client, adapter, leases[1])
    heartbeat(redis_client, adapter)
    assert workers(redis_client)[0].get_state() == "idle"
    assert redis_client.keys("rq:*execution*") == redis_client.keys("rq:wip:*") == []
    with redis_client.pipeline(transaction=False) as pipeline:
        adapter.unregister(pipeline)
        pipeline.execute()
    assert redis_client.keys("rq:*") == []


def test_a_lost_lease_stays_lost_and_its_end_does_not_touch_the_next_one(
    redis_client: "Redis", make_adapter: Callable[[], RqAdapter]
) -> None:
    first, second = make_adapter(), make_adapter()
    lost = lease(redis_client, first, "a", "t1")
    redis_client.delete(LEASES)
    lease(redis_client, second, "a", "t2")
    heartbeat(redis_client, first, lost)
    end(redis_client, first, lost)
    assert redis_client.zrange(LEASES, 0, -1) == [b"a:t2"]


def test_a_lost_registration_is_repeated(redis_client: "Redis", adapter: RqAdapter) -> None:
    heartbeat(redis_client, adapter)
    redis_client.delete(f"rq:worker:{adapter.name}", "rq:workers")
    heartbeat(redis_client, adapter)
    assert [worker.name for worker in workers(redis_client)] == [adapter.name]
