"""Times each operation on a queue in which a given number of jobs wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from cli.bench.fake_worker import FakeWorker
from cli.bench.filling import fill
from cli.bench.measured_service import MeasuredService
from cli.bench.prompts import body
from worker.queue.worker_queue import Claim

COLUMNS = (
    *("accept", "claim", "list 100", "look at", "cancel oldest", "cancel newest", "/metrics"),
    *("Redis MiB", "API MiB", "Redis start s", "API start s"),
)


@dataclass
class _Waiting:
    """The waiting jobs of the first owner, oldest first; kept at the same number."""

    service: MeasuredService
    worker: FakeWorker
    ids: dict[str, None]

    def replace(self, job_id: str) -> None:
        """Queue another job for one that waits no longer."""
        self.ids.pop(job_id, None)
        self.ids.update(dict.fromkeys(fill(self.service, 1, owners=1)))


def measure(service: MeasuredService, waiting: int, owners: int, *, rounds: int) -> list[float]:
    """The values of COLUMNS: medians of some rounds in milliseconds, then memory and start-up."""
    service.clear()
    service.settle()
    jobs = _Waiting(
        service, FakeWorker(service.settings), dict.fromkeys(fill(service, waiting, owners=owners))
    )
    steps: list[Callable[[], float]] = [
        lambda: _accept(jobs),
        lambda: _claim(jobs),
        lambda: _timed(lambda: service.call("GET", "/jobs?limit=100")),
        lambda: _timed(lambda: service.call("GET", f"/jobs/{_newest(jobs)}")),
        lambda: _cancel(jobs, next(iter(jobs.ids))),
        lambda: _cancel(jobs, _newest(jobs)),
        lambda: _timed(lambda: service.call("GET", "/metrics")),
    ]
    times = [median(step() for _ in range(rounds)) * 1000 for step in steps]
    memory = service.redis_bytes(), service.process_metric("process_resident_memory_bytes")
    service.restart()
    return [*times, *(size / 2**20 for size in memory), service.redis_seconds, service.api_seconds]


def _newest(jobs: _Waiting) -> str:
    return next(reversed(jobs.ids))


def _accept(jobs: _Waiting) -> float:
    found: list[str] = []
    seconds = _timed(
        lambda: found.append(jobs.service.call("POST", "/generate", body=body(len(jobs.ids)))["id"])
    )
    jobs.service.call("DELETE", f"/jobs/{found[0]}")
    return seconds


def _claim(jobs: _Waiting) -> float:
    taken: list[Claim | None] = []
    seconds = _timed(lambda: taken.append(jobs.worker.take()))
    if (claim := taken[0]) is None:
        raise RuntimeError("a queue with waiting jobs has none to take")
    jobs.worker.end(claim, 0)
    jobs.replace(claim.job_id)
    return seconds


def _cancel(jobs: _Waiting, job_id: str) -> float:
    seconds = _timed(lambda: jobs.service.call("DELETE", f"/jobs/{job_id}"))
    jobs.replace(job_id)
    return seconds


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
