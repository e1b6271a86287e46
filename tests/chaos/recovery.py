"""Measures how soon the service recovers: a killed worker's jobs, and the service as a whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from tests.chaos.clients import Clients
from tests.chaos.cluster import Cluster
from tests.chaos.member import Member
from worker.job import TERMINAL
from worker.queue.layout import redis_keys, rq_layout

PROBE_JOBS = 16
"""Long jobs, so that the killed worker has several."""

_PATIENCE_SECONDS = 120


def await_recovery(cluster: Cluster, clients: Clients) -> float:
    """The seconds until all APIs are ready and a new job has ended; inf after two minutes."""
    began = time.monotonic()
    job_id = None
    while time.monotonic() < began + _PATIENCE_SECONDS:
        cluster.tend()
        if all(map(cluster.is_ready, cluster.api_urls)):
            job_id = job_id or clients.submit_probe()
            if job_id and not cluster.unfinished([job_id]):
                return time.monotonic() - began
        time.sleep(0.05)
    return float("inf")


def time_takeover(cluster: Cluster, clients: Clients, tell: Callable[[str], None]) -> list[float]:
    """Kill a worker that has jobs; the seconds until each of its jobs was retried.

    The queue is empty before, so that the other workers have capacity for these jobs.
    """
    cluster.calm()
    _await_empty_queue(cluster)
    submitting = threading.Thread(target=clients.submit_long_ones, args=(PROBE_JOBS,))
    submitting.start()
    quiet_until = time.monotonic() + 3
    deadline = time.monotonic() + _PATIENCE_SECONDS
    busy: list[Member] = []
    with cluster.direct() as client:
        while submitting.is_alive() or time.monotonic() < quiet_until or not busy:
            if time.monotonic() > deadline:
                raise RuntimeError("no worker has taken a job")
            cluster.tend()
            held = _held(client)
            busy = [worker for worker in cluster.workers if held.get(worker.pid)]
            time.sleep(0.05)
        victim = max(busy, key=lambda worker: len(held[worker.pid]))
        tell(f"probe: kill -9 {victim.name} with {len(held[victim.pid])} jobs")
        killed_at = time.time()
        victim.send(signal.SIGKILL)
        jobs, found = set(held[victim.pid]), []
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while jobs and time.monotonic() < deadline:
            cluster.tend()
            for job_id in list(jobs):
                again = _retried_at(client, job_id, killed_at)
                is_over = client.hget(redis_keys.job_key(job_id), "status") in TERMINAL
                if again is not None:
                    found.append(again - killed_at)
                if again is not None or is_over:
                    jobs.discard(job_id)
            time.sleep(0.05)
        return found + [float("inf")] * len(jobs)


def _await_empty_queue(cluster: Cluster) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with cluster.direct() as client:
        while time.monotonic() < deadline:
            cluster.tend()
            with contextlib.suppress(redis.RedisError):  # it may be restarting
                if client.zcard(redis_keys.QUEUED) == 0:
                    return
            time.sleep(0.1)


def _held(client: "redis.Redis") -> dict[int, list[str]]:
    """Running jobs by the process id of their worker."""
    pids = {}
    keys: Any = client.smembers(rq_layout.WORKERS_KEY)
    for key in keys:
        if pid := client.hget(key, "pid"):
            pids[key.rpartition(":")[2]] = int(pid)
    held: dict[int, list[str]] = {}
    running: Any = client.zrange(redis_keys.RUNNING, 0, -1)
    for job_id in running:
        worker = client.hget(redis_keys.job_key(job_id), "worker")
        if worker in pids:
            held.setdefault(pids[worker], []).append(job_id)
    return held


def _retried_at(client: "redis.Redis", job_id: str, since: float) -> float | None:
    start = str(int(since * 1000))
    events: Any = client.xrange(redis_keys.events_key(job_id), min=start)
    for event_id, fields in events:
        if fields["event"] == "retrying":
            return int(event_id.partition("-")[0]) / 1000
    return None
