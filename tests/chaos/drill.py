"""One drill: seeded faults while clients work, then a check of every accepted job."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.check import check_jobs, check_webhooks, leftovers
from tests.chaos.clients import Clients, JobLedger
from tests.chaos.cluster import Cluster
from tests.chaos.faults.all_faults import FAULTS
from tests.chaos.faults.fault import Fault
from tests.chaos.recovery import await_recovery, time_takeover
from tests.chaos.report import DrillReport
from tests.chaos.signs import Signs
from tests.chaos.webhook_receiver import WebhookReceiver
from worker.job import TERMINAL
from worker.queue.layout import redis_keys

PROBE_EVERY = 10
"""After this many faults, one worker is killed alone and the recovery of its jobs is timed."""

_SETTLE_SECONDS = 120
_SIGN_SECONDS = 60


@dataclass(frozen=True)
class DrillPlan:
    """What a drill does.

    First `overlapping` faults, at a mean distance of `pause` seconds, while clients submit `jobs`
    jobs. Then each fault of `one_by_one` alone. No recovery may take longer than `bound` seconds.
    """

    seed: int
    settings: dict[str, str]
    redis_server: Path
    jobs: int
    overlapping: int
    pause: float
    one_by_one: tuple[str, ...]
    bound: float


def drill(folder: Path, plan: DrillPlan, tell: Callable[[str], None]) -> DrillReport:
    """Run a drill."""
    cluster = Cluster(
        folder,
        plan.settings,
        step_seconds=0.05,
        random=random.Random(plan.seed),
        redis_server=plan.redis_server,
    )
    report = DrillReport(plan.seed)
    receiver = WebhookReceiver(plan.seed)
    began = time.monotonic()
    try:
        cluster.start()
        cluster.clients = clients = Clients(
            cluster.api_urls,
            secrets=list(cluster.secrets.values()),
            webhook_url=receiver.url,
            count=plan.jobs,
            seconds=plan.overlapping * plan.pause,
            seed=plan.seed,
        )
        _overlapping(cluster, clients, report, plan, tell)
        _one_by_one(cluster, clients, report, plan, tell)
        tell("calm")
        cluster.calm()
        clients.finish(cluster.tend)
        tell("all clients have their answers")
        _settle(cluster, clients.ledger)
        tell("all jobs have ended")
        check_jobs(cluster, clients.ledger, report)
        check_webhooks(cluster, clients.ledger, receiver, report)
    finally:
        report.restarts = sum(member.restarts for member in cluster.members)
        report.skipped = cluster.skipped
        report.problems += cluster.complaints
        cluster.stop()
        receiver.close()
    report.judge_recoveries(plan.bound)
    report.seconds = time.monotonic() - began
    return report


def _overlapping(
    cluster: Cluster,
    clients: Clients,
    report: DrillReport,
    plan: DrillPlan,
    tell: Callable[[str], None],
) -> None:
    choice = cluster.random
    known = [fault for fault in FAULTS.values() if not fault.is_apart]
    # Every kind at least once, if the plan has enough of them.
    choice.shuffle(known)
    faults = [*known, *choice.choices(known, k=max(0, plan.overlapping - len(known)))]
    for number, fault in enumerate(faults[: plan.overlapping], 1):
        until = time.monotonic() + choice.uniform(0.5, 1.5) * plan.pause
        while time.monotonic() < until:
            cluster.tend()
            time.sleep(0.05)
        tell(fault.name)
        if cluster.begin(fault):
            report.faults[fault.name] += 1
        if number % PROBE_EVERY == 0:
            report.takeovers += time_takeover(cluster, clients, tell)
            report.faults["worker killed"] += 1


def _one_by_one(
    cluster: Cluster,
    clients: Clients,
    report: DrillReport,
    plan: DrillPlan,
    tell: Callable[[str], None],
) -> None:
    faults = [FAULTS[name] for name in plan.one_by_one]
    cluster.random.shuffle(faults)
    clients.keep_busy(plan.jobs)
    for fault in faults:
        cluster.calm()
        if await_recovery(cluster, clients) == float("inf"):
            raise RuntimeError(f"no recovery before {fault.name}: {cluster.log_ends()}")
        told = len(report.problems)
        seconds = _alone(cluster, clients, fault, report)
        if seconds is not None:
            report.faults[fault.name] += 1
            report.recoveries[fault.name] = seconds
            tell(f"{fault.name}: recovery after {seconds:.1f} s")
        for problem in report.problems[told:]:
            tell(problem)


def _alone(cluster: Cluster, clients: Clients, fault: Fault, report: DrillReport) -> float | None:
    """Let a fault last for its longest time; the seconds of the recovery, None if skipped."""
    secret = next(iter(cluster.secrets.values()))
    signs = Signs(fault.name, cluster.api_urls, cluster.new_logs(), secret=secret)
    if not cluster.begin(fault, seconds=float("inf")):
        return None
    least = time.monotonic() + fault.seconds[1]
    most = least + _SIGN_SECONDS
    while time.monotonic() < most and (not signs.look() or time.monotonic() < least):
        cluster.tend()
        time.sleep(0.1)
    report.problems += signs.problems()
    cluster.calm()
    cluster.await_apis()  # the cause has gone when killed processes have started again
    return await_recovery(cluster, clients)


def _settle(cluster: Cluster, ledger: JobLedger) -> None:
    """Wait until every job has ended, every webhook is delivered, and nothing else is left."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    with cluster.direct() as client:
        while time.monotonic() < deadline:
            cluster.tend()
            states = [client.hget(redis_keys.job_key(j), "status") for j in ledger.accepted]
            has_ended = all(state in TERMINAL for state in states)
            if has_ended and not client.zcard(redis_keys.OUTBOX) and not leftovers(client):
                break
            time.sleep(0.2)
