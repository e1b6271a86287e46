"""Simulates scheduling policies and fairness between keys on one GPU.

Run by `kirazuri bench schedule`; with `--pauses` it measures the real step loop instead. Jobs
arrive as a Poisson process. Time is counted in computed tokens, as on a fully loaded GPU.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import quantiles
from typing import Any

from model.bench.fair_queue import FairQueue
from model.bench.report import add_json_option, print_report
from model.engine.batching import Candidate, select_batch

TOKEN_BUDGET = 8192
SECONDS_PER_TOKEN = 1.64 / (30 * 8192)
"""A 1024x1024 image in 30 guided steps takes 1.64 s, about the limit of an H100 in bfloat16."""

SLO = 3.0
"""A job is on time if it takes at most this many times as long as alone."""

_GREEDY = "greedy key: all done after s"

Chooser = Callable[[Sequence[Candidate[int]]], list[Candidate[int]]]
"""Selects the jobs that take part in the next step from all running ones, in order of arrival."""


@dataclass
class SimulatedJob:
    """A simulated request. Times are in tokens."""

    key: int
    arrival: float
    shape: tuple[int, int]
    rows: int
    remaining: int
    owner: str = ""
    waited: int = 0
    finished: float | None = None
    service: float = field(init=False)

    def __post_init__(self) -> None:
        self.service = self.remaining * self.as_candidate().tokens

    def as_candidate(self) -> Candidate[int]:
        """The job as the scheduler sees it."""
        return Candidate(
            self.key, self.shape, self.rows, self.remaining, self.waited, owner=self.owner
        )

    @property
    def latency(self) -> float:
        """Tokens from arrival to end. ValueError if it is not finished."""
        if self.finished is None:
            raise ValueError(f"job {self.key} is not finished")
        return self.finished - self.arrival

    @property
    def slowdown(self) -> float:
        """Latency divided by the time that it takes alone, at least 1."""
        return self.latency / self.service


def simulate(
    jobs: Sequence[SimulatedJob],
    chooser: Chooser,
    *,
    max_running: int = 1_000_000,
    is_fair: bool = False,
) -> None:
    """Run one engine until all jobs, given in order of arrival, are finished.

    At most `max_running` jobs are in the engine at once; the others wait in order of arrival. With
    `is_fair` they wait in a fair queue between owners, and the engine takes up to `max_running`
    jobs of each owner and twice as many in total.
    """
    now, arriving = 0.0, list(reversed(jobs))
    queue: FairQueue[int] = FairQueue()
    waiting: dict[int, SimulatedJob] = {}
    running: dict[int, SimulatedJob] = {}
    is_changed = False
    while arriving or queue or running:
        if not running and not queue:
            now = max(now, arriving[-1].arrival)
        while arriving and arriving[-1].arrival <= now:
            job = arriving.pop()
            waiting[job.key] = job
            queue.join(job.key, job.owner if is_fair else "all", cost=job.service)
            is_changed = True
        while is_changed and len(running) < (2 * max_running if is_fair else max_running):
            counts = Counter(job.owner if is_fair else "all" for job in running.values())
            key = queue.next({owner for owner, n in counts.items() if n >= max_running})
            if key is None:
                break
            queue.take(key)
            running[key] = waiting.pop(key)
        is_changed = False
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
                is_changed = True


def shortest_first(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """The engine's policy: shortest remaining work first, with ageing."""
    return select_batch(waiting, token_budget=TOKEN_BUDGET)


def first_come(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """A plain queue: the oldest job runs to its end."""
    return [min(waiting, key=lambda c: c.key)]


def round_robin(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """Jobs take turns: the job that waited for the most steps is next."""
    return [max(waiting, key=lambda c: (c.waited, -c.key))]


def poisson_mix(load: float, *, count: int, seed: int) -> list[SimulatedJob]:
    """60 % 1024 x 1024 in 30 steps, 20 % 1536 x 1024 in 40, 20 % distilled: 8 without guidance."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable load, no secret
    kinds = [((128, 128), 2, 30), ((128, 192), 2, 40), ((128, 128), 1, 8)]
    mean_service = 0.6 * 8192 * 30 + 0.2 * 12288 * 40 + 0.2 * 4096 * 8
    jobs, now = [], 0.0
    for key in range(count):
        now += rng.expovariate(load / mean_service)
        (kind,) = rng.choices(kinds, [0.6, 0.2, 0.2])
        jobs.append(SimulatedJob(key, now, *kind))
    return jobs


POLICIES: dict[str, Chooser] = {
    "first come, first served": first_come,
    "steps in turn (round robin)": round_robin,
    "shortest remaining first, with ageing": shortest_first,
}


def with_a_greedy_key(
    load: float, *, count: int, seed: int, keys: int = 8, greedy: int
) -> list[SimulatedJob]:
    """The mix from several keys, and one more key that requests `greedy` images at once.

    The greedy key's requests, of 30 steps each, arrive after a tenth of the time.
    """
    rng = random.Random(seed)  # noqa: S311 - a repeatable load, no secret
    jobs = poisson_mix(load, count=count, seed=seed)
    for job in jobs:
        job.owner = f"key {rng.randrange(keys)}"
    at = jobs[count // 10].arrival
    jobs += [SimulatedJob(count + n, at, (128, 128), 2, 30, owner="greedy") for n in range(greedy)]
    return sorted(jobs, key=lambda job: (job.arrival, job.key))


def without_owners(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """The engine's policy without owners."""
    return shortest_first([replace(candidate, owner=None) for candidate in waiting])


def rows_greedy(
    load: float, *, count: int, greedy: int, seed: int, max_running: int
) -> list[dict[str, Any]]:
    """The latencies of the other keys' jobs beside a greedy key, by the order of keys."""
    rows = []
    ways: list[tuple[str, Chooser, bool, int]] = [
        ("no greedy key", shortest_first, True, 0),
        ("order of arrival", without_owners, False, greedy),
        ("fair queue before the engine", without_owners, True, greedy),
        ("fair queue and fair engine", shortest_first, True, greedy),
    ]
    for name, chooser, is_fair, asked in ways:
        jobs = with_a_greedy_key(load, count=count, seed=seed, greedy=asked)
        simulate(jobs, chooser, max_running=max_running, is_fair=is_fair)
        others = [job for job in jobs if job.owner != "greedy"]
        last = max((job.latency for job in jobs if job.owner == "greedy"), default=None)
        keys = "and a greedy one" if asked else f"{load:.0%}, 8 keys"
        done = "" if last is None else f"{last * SECONDS_PER_TOKEN:.0f}"
        rows.append({"load": keys, "policy": name, **_spread(others), _GREEDY: done})
    return rows


def rows_by_policy(load: float, *, count: int, seed: int, max_running: int) -> list[dict[str, Any]]:
    """The latencies under all policies on the same jobs."""
    rows = []
    for name, chooser in POLICIES.items():
        jobs = poisson_mix(load, count=count, seed=seed)
        simulate(jobs, chooser, max_running=max_running)
        rows.append({"load": f"{load:.0%}", "policy": name, **_spread(jobs), _GREEDY: ""})
    return rows


def _spread(jobs: Sequence[SimulatedJob]) -> dict[str, Any]:
    seconds = quantiles([job.latency * SECONDS_PER_TOKEN for job in jobs], n=20)
    slowdowns = [job.slowdown for job in jobs]
    p95, worst = quantiles(slowdowns, n=20)[18], max(slowdowns)
    on_time = sum(slowdown <= SLO for slowdown in slowdowns) / len(jobs)
    return {
        "p50 s": seconds[9],
        "p95 s": seconds[18],
        "p95 slowdown": p95,
        "worst slowdown": worst,
        f"within {SLO:g}x its own time": f"{on_time:.0%}",
    }


def main() -> None:
    """Parse the command line, simulate and print the tables."""
    parser = argparse.ArgumentParser(prog="kirazuri bench schedule", description=__doc__)
    parser.add_argument("--load", type=float, nargs="+", default=[0.7, 0.85])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--max-running", type=int, default=8, help="maximum number of jobs in the engine at once"
    )
    parser.add_argument(
        "--pauses", action="store_true", help="measure instead how the step loop pauses for others"
    )
    parser.add_argument("--rounds", type=int, default=9, help="of the pauses")
    add_json_option(parser)
    options = parser.parse_args()
    if options.pauses:
        # Loads torch, which the simulation does not need.
        from model.bench import pauses

        rows = pauses.measure(options.rounds)
        about = pauses.conditions(options.rounds)
        print_report(about, rows, command="schedule", json_path=options.json)
        return
    greedy = options.jobs // 8
    same: dict[str, int] = {
        "count": options.jobs, "seed": options.seed, "max_running": options.max_running
    }  # fmt: skip
    rows = [row for load in options.load for row in rows_by_policy(load, **same)]
    rows += rows_greedy(options.load[0], greedy=greedy, **same)
    conditions = (
        f"{options.jobs} jobs, {options.max_running} in the engine; last the jobs of 8 keys, and "
        f"those beside a ninth that asks for {greedy} pictures at once"
    )
    print_report(conditions, rows, command="schedule", json_path=options.json)


if __name__ == "__main__":
    main()
