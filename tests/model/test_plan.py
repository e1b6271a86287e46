"""The step's choice: its rules one by one, and a small simulation of what they add up to."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.plan import AGEING, Candidate, choose

BUDGET = 8192

Chooser = Callable[[Sequence[Candidate[int]]], list[Candidate[int]]]


def candidate(
    key: int = 0,
    *,
    shape: tuple[int, int] = (128, 128),
    rows: int = 2,
    remaining: int = 30,
    waited: int = 0,
    group: str | None = None,
) -> Candidate[int]:
    return Candidate(
        key=key, shape=shape, rows=rows, remaining=remaining, waited=waited, group=group
    )


def keys(chosen: list[Candidate[int]]) -> list[int]:
    return [c.key for c in chosen]


def test_tokens_count_the_patches_of_every_row() -> None:
    assert candidate(shape=(128, 128), rows=2).tokens == 8192
    assert candidate(shape=(128, 192), rows=1).tokens == 6144
    assert candidate(shape=(15, 16), rows=1).tokens == 64


def test_nothing_waits_nothing_is_chosen() -> None:
    assert choose([], token_budget=BUDGET) == []


def test_one_always_takes_part_even_above_the_budget() -> None:
    large = candidate(shape=(256, 256))
    assert choose([large], token_budget=64) == [large]


def test_shortest_remaining_work_leads_and_only_its_shape_joins() -> None:
    waiting = [
        candidate(1, shape=(64, 64), remaining=30),
        candidate(2, shape=(32, 32), remaining=30),
        candidate(3, shape=(64, 64), remaining=3),
        candidate(4, shape=(32, 32), remaining=10),
    ]
    assert keys(choose(waiting, token_budget=BUDGET)) == [4, 2]


def test_groups_keep_apart_whatever_their_shapes() -> None:
    waiting = [
        candidate(1, shape=(32, 32), remaining=9, group="a"),
        candidate(2, shape=(32, 32), remaining=3, group="b"),
        candidate(3, shape=(32, 32), remaining=5),
        candidate(4, shape=(32, 32), remaining=7, group="b"),
    ]
    assert keys(choose(waiting, token_budget=BUDGET)) == [2, 4]
    assert keys(choose([waiting[0], waiting[2]], token_budget=BUDGET)) == [3]


def test_the_batch_is_filled_up_to_the_budget_and_not_above() -> None:
    waiting = [candidate(i, shape=(64, 64), remaining=i + 1) for i in range(6)]
    assert keys(choose(waiting, token_budget=4 * 2048)) == [0, 1, 2, 3]
    assert keys(choose(waiting, token_budget=4 * 2048 - 1)) == [0, 1, 2]


def test_one_that_does_not_fit_lets_smaller_ones_pass() -> None:
    waiting = [
        candidate(0, shape=(64, 64), rows=2, remaining=1),
        candidate(1, shape=(64, 64), rows=2, remaining=2),
        candidate(2, shape=(64, 64), rows=1, remaining=9),
    ]
    assert keys(choose(waiting, token_budget=3 * 1024)) == [0, 2]


def test_ties_go_to_the_first_admitted() -> None:
    waiting = [candidate(i) for i in (3, 1, 2)]
    assert keys(choose(waiting, token_budget=BUDGET)) == [3]


def test_waiting_brings_forward() -> None:
    long, short = candidate(0, remaining=30), candidate(1, remaining=10)
    patience = round(20 / AGEING)
    assert keys(choose([long, short], token_budget=BUDGET)) == [1]
    assert keys(choose([replace(long, waited=patience + 1), short], token_budget=BUDGET)) == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_budget": 0}, "token_budget is 0, must be at least 1"),
        ({"token_budget": 1, "ageing": -1.0}, "ageing is -1.0, must be at least 0"),
        ({"token_budget": 1, "ageing": float("nan")}, "ageing is nan, must be at least 0"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose([candidate()], **options)  # type: ignore[arg-type]


CANDIDATES = st.builds(
    candidate,
    shape=st.sampled_from([(16, 16), (16, 24), (24, 24)]),
    rows=st.integers(1, 2),
    remaining=st.integers(1, 60),
    waited=st.integers(0, 5000),
    group=st.sampled_from([None, "a"]),
)


@given(st.lists(CANDIDATES, min_size=1, max_size=12), st.integers(1, 2000))
def test_every_choice_keeps_the_rules(waiting: list[Candidate[int]], budget: int) -> None:
    waiting = [replace(c, key=i) for i, c in enumerate(waiting)]
    chosen = choose(waiting, token_budget=budget)
    assert chosen == choose(waiting, token_budget=budget)
    assert len({c.key for c in chosen}) == len(chosen) >= 1
    assert {c.key for c in chosen} <= {c.key for c in waiting}
    assert len({(c.shape, c.group) for c in chosen}) == 1
    assert len(chosen) == 1 or sum(c.tokens for c in chosen) <= budget
    kind = (chosen[0].shape, chosen[0].group)
    left_out = [c for c in waiting if c not in chosen and (c.shape, c.group) == kind]
    free = budget - sum(c.tokens for c in chosen)
    assert all(c.tokens > free for c in left_out)


@dataclass
class Job:
    """A request of the simulation; times count tokens computed, the cost of a busy GPU."""

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
        return Candidate(self.key, self.shape, self.rows, self.remaining, self.waited)

    @property
    def slowdown(self) -> float:
        assert self.finished is not None
        return (self.finished - self.arrival) / self.service


def simulate(jobs: Sequence[Job], chooser: Chooser, *, max_running: int = 1000) -> None:
    """Run a single engine over jobs in order of arrival until all are finished."""
    now, waiting = 0.0, list(jobs)
    running: dict[int, Job] = {}
    while waiting or running:
        if not running:
            now = max(now, waiting[0].arrival)
        while waiting and waiting[0].arrival <= now and len(running) < max_running:
            job = waiting.pop(0)
            running[job.key] = job
        chosen = chooser([job.as_candidate() for job in running.values()])
        now += sum(c.tokens for c in chosen)
        for c in chosen:
            running[c.key].remaining -= 1
        for job in [job for job in running.values() if job.key not in keys(chosen)]:
            job.waited += 1
        for job in [job for job in running.values() if job.remaining == 0]:
            job.finished = now
            del running[job.key]


def shortest_first(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    return choose(waiting, token_budget=BUDGET)


def first_come(waiting: Sequence[Candidate[int]]) -> list[Candidate[int]]:
    return [min(waiting, key=lambda c: c.key)]


def poisson_mix(load: float, *, count: int, seed: int) -> list[Job]:
    """60 % 1024 x 1024 in 30 steps, 20 % 1536 x 1024 in 40, 20 % distilled: 8 without guidance."""
    rng = random.Random(seed)
    kinds = [((128, 128), 2, 30), ((128, 192), 2, 40), ((128, 128), 1, 8)]
    mean_service = 0.6 * 8192 * 30 + 0.2 * 12288 * 40 + 0.2 * 4096 * 8
    jobs, now = [], 0.0
    for key in range(count):
        now += rng.expovariate(load / mean_service)
        (kind,) = rng.choices(kinds, [0.6, 0.2, 0.2])
        jobs.append(Job(key, now, *kind))
    return jobs


@pytest.mark.parametrize("load", [0.7, 0.85])
def test_slowdown_on_a_mix_is_far_below_first_come_first_served(load: float) -> None:
    slowdowns = {}
    for chooser in (shortest_first, first_come):
        jobs = poisson_mix(load, count=300, seed=1)
        simulate(jobs, chooser)
        slowdowns[chooser] = [job.slowdown for job in jobs]
    within = {c: mean(s <= 3 for s in values) for c, values in slowdowns.items()}
    assert mean(slowdowns[shortest_first]) < 0.5 * mean(slowdowns[first_come])
    assert within[shortest_first] > within[first_come] + 0.15


def test_short_jobs_finish_before_long_ones_of_the_same_age() -> None:
    jobs = [Job(i, 0.0, (128, 128), 2, steps) for i, steps in enumerate([40, 8, 30, 20, 12])]
    simulate(jobs, shortest_first)
    finished = sorted(jobs, key=lambda job: job.finished or 0)
    assert [job.service for job in finished] == sorted(job.service for job in jobs)


def endless_short_jobs(count: int) -> list[Job]:
    """One long job, then at every step another short one: together more than the engine's all."""
    long = Job(0, 0.0, (128, 192), 2, 40)
    short = [Job(i + 1, i * 4096.0, (128, 128), 1, 1) for i in range(count)]
    return [long, *short]


def test_ageing_bounds_the_wait_under_a_flood_of_short_jobs() -> None:
    bound = round(40 * 12288 / (AGEING * BUDGET))
    jobs = endless_short_jobs(bound + 100)
    simulate(jobs, shortest_first)
    assert 0 < jobs[0].waited <= bound
    assert all(job.finished is not None for job in jobs)
    without = endless_short_jobs(bound + 100)
    simulate(without, lambda waiting: choose(waiting, token_budget=BUDGET, ageing=0))
    assert without[0].waited == bound + 100


@pytest.mark.parametrize("seed", range(3))
def test_everyone_finishes_in_a_full_engine_that_is_always_overloaded(seed: int) -> None:
    jobs = poisson_mix(3.0, count=120, seed=seed)
    simulate(jobs, shortest_first, max_running=8)
    assert all(job.finished is not None for job in jobs)
    # After service / (ageing * budget) steps only the 7 that run beside a job then can still be
    # ahead of it, each for at most its 40 evaluations: whatever is admitted later is behind.
    assert all(job.waited <= job.service / (AGEING * BUDGET) + 7 * 40 for job in jobs)
