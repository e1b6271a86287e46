"""What must hold when a drill is over: every accepted job ended once, and nothing is left over."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import httpx2
import redis
from rq.registry import FailedJobRegistry

from tests.chaos.clients import JobLedger
from tests.chaos.cluster import CARD, Cluster
from tests.chaos.report import DrillReport
from tests.chaos.webhook_receiver import WebhookReceiver
from worker.job import TERMINAL
from worker.queue.layout import redis_keys, rq_layout

_MOST_MEMORY = 64 * 2**20
_UNKNOWN_OF_A_FAULT = 2
"""Pictures that a fault may leave without a record; the sweeper removes them later."""


def check_jobs(cluster: Cluster, ledger: JobLedger, report: DrillReport) -> None:
    """Check every accepted job, then what is left in Redis and among the pictures."""
    report.refused = ledger.refused
    report.problems += [f"{count} times: {what}" for what, count in ledger.oddities.items()]
    with cluster.direct() as client, httpx2.Client(timeout=10, trust_env=False) as http:
        check = _JobCheck(cluster, ledger, report, client, http)
        for key, ids in ledger.ids.items():
            if len(ids) > 1:
                report.duplicated.append(f"key {key} made {sorted(ids)}")
            for job_id in ids:
                check.look_at(job_id, ledger.secrets[key])
        _check_leftovers(cluster, client, check.shown, report)
    if report.lost:
        report.problems.append(f"lost: {report.lost}")
    if report.duplicated:
        report.problems.append(f"duplicated: {report.duplicated}")


@dataclass
class _JobCheck:
    """Checks one job after the other; `shown` are the names of their pictures."""

    cluster: Cluster
    ledger: JobLedger
    report: DrillReport
    client: "redis.Redis"
    http: httpx2.Client
    shown: set[str] = field(default_factory=set)

    def look_at(self, job_id: str, secret: str) -> None:
        """Check the end, owner and pictures of an accepted job."""
        answer = self._get(job_id, secret)
        others = next(other for other in self.cluster.secrets.values() if other != secret)
        if self._get(job_id, others).status_code != 404:
            self.report.problems.append(f"{job_id} can be seen with the key of another")
        if answer.status_code != 200:
            self.report.lost.append(f"{job_id}: GET answers {answer.status_code}")
            return
        job = answer.json()
        status = job["status"]
        self.report.states[status] += 1
        self.report.retries += max(0, job["attempts"] - 1)
        events: Any = self.client.xrange(redis_keys.events_key(job_id))
        ends = [fields["event"] for _, fields in events if fields["event"] in TERMINAL]
        if status in TERMINAL and ends != [status]:
            self.report.duplicated.append(f"{job_id} is {status} and told {ends}")
        if status == "succeeded":
            self._look_at_pictures(job)
        # The response to a cancel may have been lost, but not the request itself.
        elif not (
            status == "cancelled" and self.client.hexists(redis_keys.job_key(job_id), "cancel")
        ):
            self.report.lost.append(f"{job_id} is {status}: {job['error']}")

    def _get(self, job_id: str, secret: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {secret}"}
        return self.http.get(f"{self.cluster.api_urls[0]}/jobs/{job_id}", headers=headers)

    def _look_at_pictures(self, job: dict[str, Any]) -> None:
        if job["recipe"]["card"] != CARD:
            self.report.problems.append(f"{job['id']} was made with {job['recipe']['card']}")
        first = job["request"]["seed"]
        seeds = [image["seed"] for image in job["images"]]
        if seeds != list(range(first, first + self.ledger.wanted[job["id"]])):
            self.report.duplicated.append(f"{job['id']} has pictures of seeds {seeds}")
        for image in job["images"]:
            file = self.cluster.images / image["url"].rpartition("/")[2]
            self.shown.add(file.name)
            is_there = file.exists()
            if not is_there or hashlib.sha256(file.read_bytes()).hexdigest() != image["sha256"]:
                self.report.lost.append(f"{job['id']}: picture {file.name} is missing or changed")


def check_webhooks(
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


def _check_leftovers(
    cluster: Cluster, client: "redis.Redis", shown: set[str], report: DrillReport
) -> None:
    """Check that no job is stuck, no entry is orphaned, and memory stays bounded."""
    stored = {file.name for file in cluster.images.iterdir() if file.suffix == ".png"}
    unknown = [n for n in stored - shown if client.zscore(redis_keys.IMAGES, n) is None]
    # Pictures of workers that died before recording them.
    if len(unknown) > _UNKNOWN_OF_A_FAULT * report.faults.total():
        report.problems.append(f"{len(unknown)} pictures that no record knows")
    if shown - stored:
        report.problems.append(f"{len(shown - stored)} pictures without bytes")
    report.problems += [f"{count} left in {name}" for name, count in leftovers(client).items()]
    info: Any = client.info("memory")
    report.redis_bytes = int(info["used_memory"])
    if report.redis_bytes > _MOST_MEMORY:
        report.problems.append(f"Redis uses {report.redis_bytes} bytes")


def leftovers(client: "redis.Redis") -> dict[str, int]:
    """What Redis still has of jobs in progress: how many entries, by the place."""
    queue = rq_layout.QUEUE
    counts: dict[str, Any] = {
        "queue": client.llen(rq_layout.list_key(queue)),
        "intermediate": client.llen(rq_layout.intermediate_key(queue)),
        "leases": client.zcard(rq_layout.leases_key(queue)),
        "failed registry": client.zcard(FailedJobRegistry(queue, connection=client).key),
        "queued": client.zcard(redis_keys.QUEUED),
        "running": client.zcard(redis_keys.RUNNING),
        "lines": sum(1 for _ in client.scan_iter(f"{redis_keys.PREFIXES['fair']}*")),
        "rq jobs": sum(1 for _ in client.scan_iter(rq_layout.job_key("*"))),
    }
    return {name: count for name, count in counts.items() if count}
