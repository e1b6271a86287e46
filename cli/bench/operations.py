"""Times each operation on a queue in which a given number of jobs wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from cli.bench.filling import fill
from cli.bench.prompts import body
from cli.bench.stand import Stand
from cli.bench.stand_in import StandIn
from worker.queue.worker_queue import Claim

COLUMNS = (
    *("accept", "claim", "list 100", "look at", "cancel oldest", "cancel newest", "/metrics"),
    *("Redis MiB", "API MiB", "Redis start s", "API start s"),
)


@dataclass
class _Waiting:
    """The waiting jobs of the first owner, oldest first; kept at the same number."""

    stand: Stand
    worker: StandIn
    ids: dict[str, None]

    def replace(self, job_id: str) -> None:
        """Queue another job for one that waits no longer."""
        self.ids.pop(job_id, None)
        self.ids.update(dict.fromkeys(fill(self.stand, 1, owners=1)))


def measure(stand: Stand, waiting: int, owners: int, *, rounds: int) -> list[float]:
    """The values of COLUMNS: medians of some rounds in milliseconds, then memory and start-up."""
    stand.clear()
    stand.settle()
    jobs = _Waiting(
        stand, StandIn(stand.settings), dict.fromkeys(fill(stand, waiting, owners=owners))
    )
    steps: list[Callable[[], float]] = [
        lambda: _accept(jobs),
        lambda: _claim(jobs),
        lambda: _timed(lambda: stand.call("GET", "/jobs?limit=100")),
        lambda: _timed(lambda: stand.call("GET", f"/jobs/{_newest(jobs)}")),
        lambda: _cancel(jobs, next(iter(jobs.ids))),
        lambda: _cancel(jobs, _newest(jobs)),
        lambda: _timed(lambda: stand.call("GET", "/metrics")),
    ]
    times = [median(step() for _ in range(rounds)) * 1000 for step in steps]
    memory = stand.redis_bytes(), stand.process_metric("process_resident_memory_bytes")
    stand.restart()
    return [*times, *(size / 2**20 for size in memory), stand.redis_seconds, stand.api_seconds]


def _newest(jobs: _Waiting) -> str:
    return next(reversed(jobs.ids))


def _accept(jobs: _Waiting) -> float:
    found: list[str] = []
    seconds = _timed(
        lambda: found.append(jobs.stand.call("POST", "/generate", body=body(len(jobs.ids)))["id"])
    )
    jobs.stand.call("DELETE", f"/jobs/{found[0]}")
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
    seconds = _timed(lambda: jobs.stand.call("DELETE", f"/jobs/{job_id}"))
    jobs.replace(job_id)
    return seconds


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
