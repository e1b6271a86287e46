"""What scheduling at step boundaries is worth: a simulation of one GPU under Poisson load.

Run by `kirazuri bench schedule`. Time counts tokens computed, as on a GPU that is kept full;
no tensors, no queue, no clock.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from model.plan import Candidate, choose

TOKEN_BUDGET = 8192
SECONDS_PER_TOKEN = 1.64 / (30 * 8192)
"""A 1024x1024 picture in 30 guided steps takes 1.64 s: what a bfloat16 H100 can reach."""

SLO = 3.0
"""A job is on time if it is done within so many times the time that it takes alone."""

Chooser = Callable[[Sequence[Candidate[int]]], list[Candidate[int]]]
"""Which of the running jobs, in order of their arrival, take the next step."""


@dataclass
class Job:
    """A request of the simulation; times are in tokens."""

    key: int
    arrival: float
    shape: tuple[int, int]
    rows: int
    remaining: int
    waited: int = 0
    finished: float | None = None
    service: float = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.remaining * self.as_candidate().tokens

    def as_candidate(self) -> Candidate[int]:
        """What the scheduler sees of it."""
        return Candidate(self.key, self.shape, self.rows, self.remaining, self.waited)

    @property
    def latency(self) -> float:
        """Tokens from arrival to end; ValueError before that."""
        if self.finished is None:
            raise ValueError(f"job {self.key} is not finished")
        return self.finished - self.arrival

    @property
    def slowdown(self) -> float:
        """Latency over the time that it takes alone, at least 1."""
        return self.latency / self.service


def simulate(jobs: Sequence[Job], chooser: Chooser, *, max_running: int = 1_000_000) -> None:
    """Run one engine over jobs in order of arrival until all are finished.

    `max_running` of them are in the engine at once; the rest waits outside in order of arrival.
    """
    now, waiting = 0.0, list(reversed(jobs))
    running: dict[int, Job] = {}
    while waiting or running:
        if not running:
            now = max(now, waiting[-1].arrival)
        while waiting and waiting[-1].arrival <= now and len(running) < max_running:
            job = waiting.pop()
            running[job.key] = job
        chosen = {c.key: c for c in chooser([job.as_candidate() for job in running.values()])}
        now += sum(c.tokens for c in chosen.values())
        for job in list(running.values()):
            if job.key not in chosen:
                job.waited += 1
                continue
            job.remaining -= 1
            if job.remaining == 0:
                job.finished = now
                del running[job.key]


def shortest_first(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """This engine: shortest remaining work first with ageing, at every step."""
    return choose(waiting, token_budget=TOKEN_BUDGET)


def first_come(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """A plain queue: the oldest job to its end."""
    return [min(waiting, key=lambda c: c.key)]


def round_robin(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """Everybody in turn: whoever sat out more of its steps so far goes on."""
    return [max(waiting, key=lambda c: (c.waited, -c.key))]


def poisson_mix(load: float, *, count: int, seed: int) -> list[Job]:
    """60 % 1024 x 1024 in 30 steps, 20 % 1536 x 1024 in 40, 20 % distilled: 8 without guidance."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable load, no secret
    kinds = [((128, 128), 2, 30), ((128, 192), 2, 40), ((128, 128), 1, 8)]
    mean_service = 0.6 * 8192 * 30 + 0.2 * 12288 * 40 + 0.2 * 4096 * 8
    jobs, now = [], 0.0
    for key in range(count):
        now += rng.expovariate(load / mean_service)
        (kind,) = rng.choices(kinds, [0.6, 0.2, 0.2])
        jobs.append(Job(key, now, *kind))
    return jobs


POLICIES: dict[str, Chooser] = {
    "first come, first served": first_come,
    "steps in turn (round robin)": round_robin,
    "shortest remaining first, with ageing": shortest_first,
}


def report(load: float, *, count: int, seed: int, max_running: int) -> str:
    """A Markdown table of all policies on the same jobs."""
    lines = [
        "| policy | p50 s | p95 s | p95 slowdown | worst slowdown | within "
        f"{SLO:g}x its own time |",
        "|---|---|---|---|---|---|",
    ]
    for name, chooser in POLICIES.items():
        jobs = poisson_mix(load, count=count, seed=seed)
        simulate(jobs, chooser, max_running=max_running)
        seconds = quantiles([job.latency * SECONDS_PER_TOKEN for job in jobs], n=20)
        slowdowns = [job.slowdown for job in jobs]
        p95, worst = quantiles(slowdowns, n=20)[18], max(slowdowns)
        on_time = sum(slowdown <= SLO for slowdown in slowdowns) / len(jobs)
        lines.append(
            f"| {name} | {seconds[9]:.2f} | {seconds[18]:.1f} | {p95:.1f} | {worst:.1f} "
            f"| {on_time:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table for every load."""
    parser = argparse.ArgumentParser(prog="kirazuri bench schedule", description=__doc__)
    parser.add_argument("--load", type=float, nargs="+", default=[0.7, 0.85])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-running", type=int, default=8, help="jobs in the engine at once")
    options = parser.parse_args()
    for load in options.load:
        print(f"\nload {load:.0%}, {options.jobs} jobs, {options.max_running} in the engine\n")
        print(report(load, count=options.jobs, seed=options.seed, max_running=options.max_running))


if __name__ == "__main__":
    main()
