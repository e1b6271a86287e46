"""What scheduling at step boundaries and fairness between keys are worth: one GPU, simulated.

Run by `kirazuri bench schedule`. Poisson load; time counts tokens computed, as on a GPU that is
kept full; no tensors, no queue, no clock.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import quantiles

from model.bench.fair_queue import FairQueue
from model.engine.batching import Candidate, select_batch

TOKEN_BUDGET = 8192
SECONDS_PER_TOKEN = 1.64 / (30 * 8192)
"""A 1024x1024 picture in 30 guided steps takes 1.64 s: what a bfloat16 H100 can reach."""

SLO = 3.0
"""A job is on time if it is done within so many times the time that it takes alone."""

Chooser = Callable[[Sequence[Candidate[int]]], list[Candidate[int]]]
"""Which of the running jobs, in order of their arrival, take the next step."""


@dataclass
class SimulatedJob:
    """A request of the simulation; times are in tokens."""

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
        """What the scheduler sees of it."""
        return Candidate(
            self.key, self.shape, self.rows, self.remaining, self.waited, owner=self.owner
        )

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


def simulate(
    jobs: Sequence[SimulatedJob],
    chooser: Chooser,
    *,
    max_running: int = 1_000_000,
    is_fair: bool = False,
) -> None:
    """Run one engine over jobs in order of arrival until all are finished.

    `max_running` of them are in the engine at once; the rest waits outside in order of arrival. If
    it `is_fair`, it waits in turns of the owners, and `max_running` of each owner are in the
    engine, of all together twice as many.
    """
    now, coming = 0.0, list(reversed(jobs))
    turns: FairQueue[int] = FairQueue()
    known: dict[int, SimulatedJob] = {}
    running: dict[int, SimulatedJob] = {}
    has_news = False
    while coming or turns or running:
        if not running and not turns:
            now = max(now, coming[-1].arrival)
        while coming and coming[-1].arrival <= now:
            job = coming.pop()
            known[job.key] = job
            turns.join(job.key, job.owner if is_fair else "all", cost=job.service)
            has_news = True
        while has_news and len(running) < (2 * max_running if is_fair else max_running):
            places = Counter(job.owner if is_fair else "all" for job in running.values())
            key = turns.next({owner for owner, n in places.items() if n >= max_running})
            if key is None:
                break
            turns.take(key)
            running[key] = known.pop(key)
        has_news = False
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
                has_news = True


def shortest_first(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """This engine: shortest remaining work first with ageing, at every step."""
    return select_batch(waiting, token_budget=TOKEN_BUDGET)


def first_come(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """A plain queue: the oldest job to its end."""
    return [min(waiting, key=lambda c: c.key)]


def round_robin(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """Everybody in turn: whoever sat out more of its steps so far goes on."""
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
    """The mix from several keys, and another that asks for `greedy` pictures of 30 steps at once.

    It asks after a tenth of the time.
    """
    rng = random.Random(seed)  # noqa: S311 - a repeatable load, no secret
    jobs = poisson_mix(load, count=count, seed=seed)
    for job in jobs:
        job.owner = f"key {rng.randrange(keys)}"
    at = jobs[count // 10].arrival
    jobs += [SimulatedJob(count + n, at, (128, 128), 2, 30, owner="greedy") for n in range(greedy)]
    return sorted(jobs, key=lambda job: (job.arrival, job.key))


def unshared(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    """This engine, if it knew no owners."""
    return shortest_first([replace(candidate, owner=None) for candidate in waiting])


def report_greedy(load: float, *, count: int, greedy: int, seed: int, max_running: int) -> str:
    """A Markdown table of what the other keys' jobs wait beside a greedy one."""
    lines = [
        "| order of keys | others: p50 s | p95 s | p95 slowdown | worst slowdown | within "
        f"{SLO:g}x its own time | greedy key: all done after s |",
        "|---|---|---|---|---|---|---|",
    ]
    ways: list[tuple[str, Chooser, bool, int]] = [
        ("no greedy key", shortest_first, True, 0),
        ("as they come", unshared, False, greedy),
        ("fair on the way into the engine", unshared, True, greedy),
        ("fair there and in the engine", shortest_first, True, greedy),
    ]
    for name, chooser, is_fair, asked in ways:
        jobs = with_a_greedy_key(load, count=count, seed=seed, greedy=asked)
        simulate(jobs, chooser, max_running=max_running, is_fair=is_fair)
        others = [job for job in jobs if job.owner != "greedy"]
        last = max((job.latency for job in jobs if job.owner == "greedy"), default=0.0)
        lines.append(f"| {name} | {_spread(others)} | {last * SECONDS_PER_TOKEN:.0f} |")
    return "\n".join(lines)


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
        lines.append(f"| {name} | {_spread(jobs)} |")
    return "\n".join(lines)


def _spread(jobs: Sequence[SimulatedJob]) -> str:
    seconds = quantiles([job.latency * SECONDS_PER_TOKEN for job in jobs], n=20)
    slowdowns = [job.slowdown for job in jobs]
    p95, worst = quantiles(slowdowns, n=20)[18], max(slowdowns)
    on_time = sum(slowdown <= SLO for slowdown in slowdowns) / len(jobs)
    return f"{seconds[9]:.2f} | {seconds[18]:.1f} | {p95:.1f} | {worst:.1f} | {on_time:.0%}"


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
    load, count, greedy = options.load[0], options.jobs, options.jobs // 8
    print(f"\nload {load:.0%} from 8 keys, {count} jobs, and {greedy} at once from a greedy one\n")
    print(
        report_greedy(
            load,
            count=count,
            greedy=greedy,
            seed=options.seed,
            max_running=options.max_running,
        )
    )


if __name__ == "__main__":
    main()
