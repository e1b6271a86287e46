"""The adapter to RQ, with the real RQ and the real Redis."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Worker
from rq.suspension import resume, suspend

from worker.queue.layout import rq_layout
from worker.runtime.rq_adapter import Lease, RqAdapter

NEWEST = rq_layout.QUEUE
LIST, INTERMEDIATE = rq_layout.list_key(), rq_layout.intermediate_key()
LEASES = rq_layout.leases_key()


@pytest.fixture
def make_adapter(redis_client: "Redis") -> Callable[[], RqAdapter]:
    return lambda: RqAdapter(redis_client, lease_seconds=5)


@pytest.fixture
def adapter(make_adapter: Callable[[], RqAdapter]) -> RqAdapter:
    return make_adapter()


def push(client: "Redis", job_id: str, queue: str = NEWEST) -> None:
    """Queue a job as the admit script does."""
    client.hset(rq_layout.job_key(job_id), items=rq_layout.job_fields(job_id, queue=queue))
    client.rpush(rq_layout.list_key(queue), job_id)


def lease(client: "Redis", adapter: RqAdapter, job_id: str = "a") -> Lease:
    """Lease a new job."""
    push(client, job_id)
    client.lrem(LIST, 0, job_id)
    with client.pipeline() as pipeline:
        lease = adapter.add_lease(pipeline, NEWEST, job_id)
        pipeline.execute()
    return lease


def heartbeat(client: "Redis", adapter: RqAdapter, *leases: Lease) -> bool:
    with client.pipeline(transaction=False) as pipeline:
        adapter.add_heartbeat(pipeline, leases)
        return adapter.is_registration_lost(pipeline.execute())


def expire(client: "Redis", lease: Lease) -> None:
    """End a lease as time would."""
    client.zadd(LEASES, {rq_layout.lease_member(lease.job.id, lease.token): time.time() - 1})


def workers(client: "Redis") -> list[Any]:
    """The workers as `rq info` reads them."""
    return Worker.all(connection=client)


def test_a_lease_is_renewed_and_leaves_nothing_behind(
    redis_client: "Redis", adapter: RqAdapter
) -> None:
    adapter.register(is_busy=False)
    leases = [lease(redis_client, adapter, job_id) for job_id in ("a", "b")]
    expire(redis_client, leases[0])
    assert not heartbeat(redis_client, adapter, *leases)
    found: Any = redis_client.zrange(LEASES, 0, -1, withscores=True)
    assert [score for _, score in found] == pytest.approx([time.time() + 5] * 2, abs=4.5)
    (worker,) = workers(redis_client)
    assert worker.get_state() == "busy"
    assert {run.job_id for run in worker.get_current_executions()} == {"a", "b"}
    adapter.end_lease(leases[0], is_idle=False)
    assert redis_client.zcard(LEASES) == 1
    adapter.end_lease(leases[1], is_idle=True)
    assert workers(redis_client)[0].get_state() == "idle"
    assert redis_client.keys("rq:*execution*") == redis_client.keys("rq:wip:*") == []
    adapter.unregister()
    assert workers(redis_client) == []


def test_the_end_of_a_lost_lease_does_not_touch_the_next_one(
    redis_client: "Redis", make_adapter: Callable[[], RqAdapter]
) -> None:
    first, second = make_adapter(), make_adapter()
    lost = lease(redis_client, first)
    expire(redis_client, lost)
    second.requeue_lost_jobs()
    assert redis_client.lpop(LIST) == b"a"
    with redis_client.pipeline() as pipeline:
        present = second.add_lease(pipeline, NEWEST, "a")
        pipeline.execute()
    first.end_lease(lost, is_idle=True)
    member = rq_layout.lease_member("a", present.token)
    assert redis_client.zrange(LEASES, 0, -1) == [member.encode()]
    assert heartbeat(redis_client, first, lost), "this worker never registered"
    assert redis_client.zcard(LEASES) == 1, "a heartbeat does not bring a lost lease back"


def test_a_lost_registration_is_noticed_and_repeated(
    redis_client: "Redis", adapter: RqAdapter
) -> None:
    adapter.register(is_busy=True)
    adapter.register(is_busy=True)
    assert not heartbeat(redis_client, adapter)
    redis_client.delete(f"rq:worker:{adapter.name}")
    assert heartbeat(redis_client, adapter)
    adapter.register(is_busy=True)
    (worker,) = workers(redis_client)
    assert (worker.name, worker.get_state()) == (adapter.name, "busy")
    assert worker.queue_names() == list(rq_layout.QUEUES)


def test_rq_suspend_is_seen(redis_client: "Redis", adapter: RqAdapter) -> None:
    assert not adapter.is_suspended()
    suspend(redis_client)
    assert adapter.is_suspended()
    resume(redis_client)
    assert not adapter.is_suspended()


def test_one_worker_maintains_at_a_time(
    redis_client: "Redis", make_adapter: Callable[[], RqAdapter]
) -> None:
    first, second = make_adapter(), make_adapter()
    key = f"rq:clean_registries:{NEWEST}"
    with first.maintenance_lock() as is_first:
        assert is_first
        ttl: Any = redis_client.ttl(key)
        assert 0 < ttl <= 10, "a dead holder blocks the others for two leases at most"
        with second.maintenance_lock() as is_second:
            assert not is_second
        assert redis_client.exists(key), "only the holder releases the lock"
    with second.maintenance_lock() as is_second:
        assert is_second


def test_jobs_of_lost_leases_go_to_the_front(redis_client: "Redis", adapter: RqAdapter) -> None:
    lost, alive = lease(redis_client, adapter, "a"), lease(redis_client, adapter, "b")
    push(redis_client, "c")
    expire(redis_client, lost)
    adapter.requeue_lost_jobs()
    assert redis_client.lrange(LIST, 0, -1) == [b"a", b"c"]
    member = rq_layout.lease_member("b", alive.token)
    assert redis_client.zrange(LEASES, 0, -1) == [member.encode()]


def test_a_popped_job_without_a_lease_returns_after_a_lease(
    redis_client: "Redis", adapter: RqAdapter
) -> None:
    push(redis_client, "a")
    redis_client.lmove(LIST, INTERMEDIATE)
    adapter.requeue_lost_jobs()
    adapter.requeue_lost_jobs()
    assert redis_client.lrange(INTERMEDIATE, 0, -1) == [b"a"], "its worker may still lease it"
    redis_client.set(f"{INTERMEDIATE}{rq_layout.FIRST_SEEN_INFIX}a", time.time() - 6)
    adapter.requeue_lost_jobs()
    assert redis_client.lrange(LIST, 0, -1) == [b"a"]
    assert not redis_client.exists(INTERMEDIATE)


def test_expired_workers_leave_the_registry(redis_client: "Redis", adapter: RqAdapter) -> None:
    adapter.register(is_busy=False)
    redis_client.delete(f"rq:worker:{adapter.name}")
    adapter.requeue_lost_jobs()
    assert redis_client.smembers("rq:workers") == set()
