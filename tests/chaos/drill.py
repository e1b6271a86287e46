"""One drill: seeded faults while clients work, then a check of every accepted job."""

import contextlib
import hashlib
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import redis

from tests.chaos.clients import Clients, JobLedger
from tests.chaos.cluster import Cluster
from tests.chaos.webhook_receiver import WebhookReceiver
from worker.job import TERMINAL
from worker.queue.layout import redis_keys, rq_layout

PROBE_EVERY = 10
"""After this many faults, one worker is killed alone and the recovery of its jobs is timed."""

PROBE_JOBS = 16
"""Long jobs, so that the killed worker has several."""

_SETTLE_SECONDS = 120
_MOST_MEMORY = 64 * 2**20


@dataclass
class DrillReport:
    """The results of a drill. `problems` must stay empty."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    retries: int = 0
    recoveries: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    redis_bytes: int = 0
    restarts: int = 0
    is_own_disk: bool = False
    webhooks: str = ""

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        states = ", ".join(f"{name} {count}" for name, count in sorted(self.states.items()))
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s",
            f"faults injected: {self.faults.total()} ({listed})",
            f"jobs accepted: {self.states.total()} ({states}); refused as nonsense: {self.refused}",
            f"lost: {len(self.lost)}",
            f"duplicated: {len(self.duplicated)}",
            f"attempts beyond the first: {self.retries}; processes started again: {self.restarts}",
            f"recovery of a killed worker's jobs: {_spread(self.recoveries)}",
            f"webhooks: {self.webhooks}",
            f"memory of Redis: {self.redis_bytes / 2**20:.1f} MiB",
            f"disk: {'a full one' if self.is_own_disk else 'out of the way'}",
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def _spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} measured"
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"p50 {cuts[49]:.1f} s, p99 {cuts[98]:.1f} s, n={len(seconds)}"


def drill(
    folder: Path,
    *,
    seed: int,
    jobs: int,
    faults: int,
    pause: float,
    outage: float,
    settings: dict[str, str],
    bound: float,
    tell: Callable[[str], None],
) -> DrillReport:
    """Run a drill.

    Times are in seconds: `pause` is the mean time between faults, `outage` the length of the first
    outage of Redis, and `bound` the longest allowed recovery.
    """
    choice = random.Random(seed)
    cluster = Cluster(folder, settings, 0.05, choice, outage)
    report = DrillReport(seed, is_own_disk=cluster.is_own_disk)
    receiver = WebhookReceiver(seed)
    began = time.monotonic()
    try:
        cluster.start()
        clients = Clients(
            cluster.api_urls,
            secrets=list(cluster.secrets.values()),
            webhook_url=receiver.url,
            count=jobs,
            seconds=faults * pause,
            seed=seed,
        )
        _break_things(cluster, clients, report, faults=faults, pause=pause, tell=tell)
        tell("calm")
        cluster.calm()
        while not clients.is_done():
            cluster.tend()
            time.sleep(0.1)
        clients.finish()
        _settle(cluster, clients.ledger)
        _check(cluster, clients.ledger, report)
        _check_webhooks(cluster, clients.ledger, receiver, report)
    finally:
        report.restarts = sum(member.restarts for member in cluster.members)
        cluster.stop()
        receiver.close()
    slow = [seconds for seconds in report.recoveries if seconds > bound]
    if slow:
        report.problems.append(f"recovery took {max(slow):.1f} s, more than {bound:g} s")
    report.seconds = time.monotonic() - began
    return report


def _break_things(
    cluster: Cluster,
    clients: Clients,
    report: DrillReport,
    *,
    faults: int,
    pause: float,
    tell: Callable[[str], None],
) -> None:
    known, choice = cluster.faults(), cluster.random
    # Every kind at least once, if `faults` allows it.
    names = [*known, *choice.choices(list(known), k=max(0, faults - len(known)))][:faults]
    choice.shuffle(names)
    for number, name in enumerate(names, 1):
        until = time.monotonic() + choice.uniform(0.5, 1.5) * pause
        while time.monotonic() < until:
            cluster.tend()
            time.sleep(0.05)
        tell(name)
        known[name]()
        report.faults[name] += 1
        if number % PROBE_EVERY == 0:
            report.recoveries += _probe(cluster, clients, tell)
            report.faults["kill -9 worker"] += 1


def _probe(cluster: Cluster, clients: Clients, tell: Callable[[str], None]) -> list[float]:
    """Kill a worker that has jobs; the seconds until each of its jobs was retried.

    The queue is empty before, so that the other workers have capacity for these jobs.
    """
    cluster.calm()
    _await_empty_queue(cluster)
    submitting = threading.Thread(target=clients.submit_long_ones, args=(PROBE_JOBS,))
    submitting.start()
    quiet_until = time.monotonic() + 3
    while submitting.is_alive() or time.monotonic() < quiet_until:
        cluster.tend()
        time.sleep(0.05)
    with cluster.direct() as client:
        held = _held(client)
        busy = [worker for worker in cluster.workers if held.get(worker.pid)]
        if not busy:
            raise RuntimeError("no worker has taken a job")
        victim = max(busy, key=lambda worker: len(held[worker.pid]))
        tell(f"probe: kill -9 {victim.name} with {len(held[victim.pid])} jobs")
        killed_at = time.time()
        victim.send(signal.SIGKILL)
        jobs, found = set(held[victim.pid]), []
        deadline = time.monotonic() + 30
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
    deadline = time.monotonic() + _SETTLE_SECONDS
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
    for key in client.scan_iter("rq:worker:*"):
        if client.type(key) == "hash" and (pid := client.hget(key, "pid")):
            pids[key.removeprefix("rq:worker:")] = int(pid)
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


def _settle(cluster: Cluster, ledger: JobLedger) -> None:
    """Wait until every job has ended and every webhook is delivered."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    with cluster.direct() as client:
        while time.monotonic() < deadline:
            cluster.tend()
            states = [client.hget(redis_keys.job_key(j), "status") for j in ledger.accepted]
            if all(state in TERMINAL for state in states) and not client.zcard(redis_keys.OUTBOX):
                break
            time.sleep(0.2)
    time.sleep(2)  # leases and registries of the last jobs expire


def _check(cluster: Cluster, ledger: JobLedger, report: DrillReport) -> None:
    report.refused = ledger.refused
    report.problems += ledger.oddities
    for key, ids in ledger.ids.items():
        if len(ids) > 1:
            report.duplicated.append(f"key {key} made {sorted(ids)}")
    shown: set[str] = set()
    with cluster.direct() as client:
        for key, ids in ledger.ids.items():
            for job_id in ids:
                shown |= _check_job(
                    cluster, client, job_id, ledger, report, secret=ledger.secrets[key]
                )
        _check_leftovers(cluster, client, shown, report)
    if report.lost:
        report.problems.append(f"lost: {report.lost}")
    if report.duplicated:
        report.problems.append(f"duplicated: {report.duplicated}")


def _check_webhooks(
    cluster: Cluster, ledger: JobLedger, receiver: WebhookReceiver, report: DrillReport
) -> None:
    """Check that all requested webhooks arrived; repeats have the same id."""
    with cluster.direct() as client:
        report.problems += receiver.problems(client, ledger.webhooks)
    report.webhooks = (
        f"{len(receiver.received)} delivered for {len(ledger.webhooks)} jobs, "
        f"{receiver.repeated} of them again, "
        f"{receiver.refused} refused by the receiver"
    )


def _check_job(
    cluster: Cluster,
    client: "redis.Redis",
    job_id: str,
    ledger: JobLedger,
    report: DrillReport,
    *,
    secret: str,
) -> set[str]:
    """Check the end, owner and pictures of an accepted job; the names of its pictures."""
    answer = _get(cluster, job_id, secret)
    others = next(other for other in cluster.secrets.values() if other != secret)
    if _get(cluster, job_id, others).status_code != 404:
        report.problems.append(f"{job_id} can be seen with the key of another")
    if answer.status_code != 200:
        report.lost.append(f"{job_id}: GET answers {answer.status_code}")
        return set()
    job = answer.json()
    status = job["status"]
    report.states[status] += 1
    report.retries += max(0, job["attempts"] - 1)
    events: Any = client.xrange(redis_keys.events_key(job_id))
    ends = [fields["event"] for _, fields in events if fields["event"] in TERMINAL]
    if status in TERMINAL and ends != [status]:
        report.duplicated.append(f"{job_id} is {status} and told {ends}")
    # The response to a cancel may have been lost, but not the request itself.
    is_wanted = status == "cancelled" and client.hexists(redis_keys.job_key(job_id), "cancel")
    if status == "succeeded":
        return _check_pictures(cluster, job, ledger.wanted[job_id], report)
    if not is_wanted:
        report.lost.append(f"{job_id} is {status}: {job['error']}")
    return set()


def _get(cluster: Cluster, job_id: str, secret: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {secret}"}
    url = f"{cluster.api_urls[0]}/jobs/{job_id}"
    return httpx2.get(url, headers=headers, timeout=10, trust_env=False)


def _check_pictures(
    cluster: Cluster, job: dict[str, Any], wanted: int, report: DrillReport
) -> set[str]:
    first = job["request"]["seed"]
    seeds = [image["seed"] for image in job["images"]]
    if seeds != list(range(first, first + wanted)):
        report.duplicated.append(f"{job['id']} has pictures of seeds {seeds}")
    names = set()
    for image in job["images"]:
        file = cluster.images / image["url"].rpartition("/")[2]
        names.add(file.name)
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != image["sha256"]:
            report.lost.append(f"{job['id']}: picture {file.name} is missing or other bytes")
    return names


def _check_leftovers(
    cluster: Cluster, client: "redis.Redis", shown: set[str], report: DrillReport
) -> None:
    """Check that no job is stuck, no entry is orphaned, and memory stays bounded."""
    stored = {file.name for file in cluster.images.iterdir() if file.suffix == ".png"}
    unknown = [n for n in stored - shown if client.zscore(redis_keys.IMAGES, n) is None]
    # Pictures of workers that died before recording them. The sweeper removes them later.
    if len(unknown) > report.faults.total():
        report.problems.append(f"{len(unknown)} pictures that no record knows")
    if shown - stored:
        report.problems.append(f"{len(shown - stored)} pictures without bytes")
    queue = rq_layout.QUEUE
    empty: dict[str, Any] = {
        "queue": client.llen(rq_layout.list_key(queue)),
        "intermediate": client.llen(rq_layout.intermediate_key(queue)),
        "leases": client.zcard(rq_layout.leases_key(queue)),
        "failed registry": client.zcard(f"rq:failed:{queue}"),
        "queued": client.zcard(redis_keys.QUEUED),
        "running": client.zcard(redis_keys.RUNNING),
        "lines": sum(1 for _ in client.scan_iter(f"{redis_keys.PREFIXES['fair']}*")),
        "rq jobs": sum(1 for _ in client.scan_iter("rq:job:*")),
    }
    report.problems += [f"{count} left in {name}" for name, count in empty.items() if count]
    info: Any = client.info("memory")
    report.redis_bytes = int(info["used_memory"])
    if report.redis_bytes > _MOST_MEMORY:
        report.problems.append(f"Redis uses {report.redis_bytes} bytes")
