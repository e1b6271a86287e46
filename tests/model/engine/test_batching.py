"""Selecting a batch: each rule alone, and simulations of all rules together."""

from collections.abc import Hashable
from dataclasses import replace
from statistics import mean, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.bench.scheduling import TOKEN_BUDGET as BUDGET
from model.bench.scheduling import (
    Chooser,
    SimulatedJob,
    first_come,
    poisson_mix,
    round_robin,
    shortest_first,
    simulate,
    with_a_greedy_key,
    without_owners,
)
from model.engine.batching import AGEING, Candidate, select_batch


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


def selected(waiting: list[Candidate[int]], token_budget: int = BUDGET) -> list[int]:
    return [c.key for c in select_batch(waiting, token_budget=token_budget)]


def test_tokens_count_the_patches_of_every_row() -> None:
    assert candidate(shape=(128, 128), rows=2).tokens == 8192
    assert candidate(shape=(128, 192), rows=1).tokens == 6144
    assert candidate(shape=(15, 16), rows=1).tokens == 64


def test_without_candidates_the_batch_is_empty() -> None:
    assert select_batch([], token_budget=BUDGET) == []


def test_one_candidate_takes_part_even_above_the_budget() -> None:
    large = candidate(shape=(256, 256))
    assert select_batch([large], token_budget=64) == [large]


def test_shortest_remaining_work_leads_and_only_its_shape_joins() -> None:
    waiting = [
        candidate(1, shape=(64, 64), remaining=30),
        candidate(2, shape=(32, 32), remaining=30),
        candidate(3, shape=(64, 64), remaining=3),
        candidate(4, shape=(32, 32), remaining=10),
    ]
    assert selected(waiting) == [4, 2]


def test_groups_keep_apart_whatever_their_shapes() -> None:
    waiting = [
        candidate(1, shape=(32, 32), remaining=9, group="a"),
        candidate(2, shape=(32, 32), remaining=3, group="b"),
        candidate(3, shape=(32, 32), remaining=5),
        candidate(4, shape=(32, 32), remaining=7, group="b"),
    ]
    assert selected(waiting) == [2, 4]
    assert selected([waiting[0], waiting[2]]) == [3]


def test_the_batch_is_filled_up_to_the_budget_and_not_above() -> None:
    waiting = [candidate(i, shape=(64, 64), remaining=i + 1) for i in range(6)]
    assert selected(waiting, 4 * 2048) == [0, 1, 2, 3]
    assert selected(waiting, 4 * 2048 - 1) == [0, 1, 2]


def test_one_that_does_not_fit_lets_smaller_ones_pass() -> None:
    waiting = [
        candidate(0, shape=(64, 64), rows=2, remaining=1),
        candidate(1, shape=(64, 64), rows=2, remaining=2),
        candidate(2, shape=(64, 64), rows=1, remaining=9),
    ]
    assert selected(waiting, 3 * 1024) == [0, 2]


def test_ties_go_to_the_first_admitted() -> None:
    waiting = [candidate(i) for i in (3, 1, 2)]
    assert selected(waiting) == [3]


def test_waiting_brings_forward() -> None:
    long, short = candidate(0, remaining=30), candidate(1, remaining=10)
    patience = round(20 / AGEING)
    assert selected([long, short]) == [1]
    assert selected([replace(long, waited=patience + 1), short]) == [0]


def test_what_must_be_set_up_counts_as_work() -> None:
    ready = candidate(0, remaining=12, group="a")
    cold = replace(candidate(1, remaining=10, group="b"), setup=3 * BUDGET)
    assert selected([ready, cold]) == [0]
    assert selected([ready, replace(cold, setup=BUDGET)]) == [1]


class Weights:
    """Caches two sets of weights. Merging another costs two full forwards."""

    def __init__(self) -> None:
        self.kept: list[Hashable] = []
        self.merges = 0

    def setup(self, group: Hashable) -> int:
        return 0 if group in self.kept else 2 * BUDGET

    def use(self, group: Hashable) -> None:
        self.merges += group not in self.kept
        self.kept = [*(g for g in self.kept if g != group), group][-2:]


@pytest.mark.parametrize("side", [16, 128])
def test_many_sets_of_weights_are_not_merged_over_and_over(side: int) -> None:
    """Also if a forward is so small that waiting counts more than the work it does."""
    weights, merges = Weights(), []
    for counts_setup in (True, False):
        weights = Weights()
        running = {i: candidate(i, shape=(side, side), group=str(i % 4)) for i in range(8)}
        while running:
            waiting = [
                replace(c, setup=weights.setup(c.group) if counts_setup else 0)
                for c in running.values()
            ]
            chosen = selected(waiting)
            weights.use(running[chosen[0]].group)
            for key, c in list(running.items()):
                if key not in chosen:
                    running[key] = replace(c, waited=c.waited + 1)
                elif c.remaining == 1:
                    del running[key]
                else:
                    running[key] = replace(c, remaining=c.remaining - 1)
        merges.append(weights.merges)
    assert merges[0] == 4
    assert merges[0] <= merges[1]


def test_setup_delays_by_a_bounded_number_of_steps() -> None:
    """One job that needs other weights, among endless short jobs that do not."""
    setup, long = 2 * BUDGET, candidate(0, remaining=40, group="a")
    bound = round((40 * long.tokens + setup) / (AGEING * BUDGET)) + 1
    while long.waited <= bound:
        short = candidate(long.waited + 1, rows=1, remaining=1)
        if selected([replace(long, setup=setup), short]) == [0]:
            break
        long = replace(long, waited=long.waited + 1)
    assert 0 < long.waited <= bound


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
        select_batch([candidate()], **options)  # type: ignore[arg-type]


CANDIDATES = st.builds(
    candidate,
    shape=st.sampled_from([(16, 16), (16, 24), (24, 24)]),
    rows=st.integers(1, 2),
    remaining=st.integers(1, 60),
    waited=st.integers(0, 5000),
    group=st.sampled_from([None, "a"]),
)


@given(st.lists(CANDIDATES, min_size=1, max_size=12), st.integers(1, 2000))
def test_every_selection_keeps_the_rules(waiting: list[Candidate[int]], budget: int) -> None:
    waiting = [replace(c, key=i) for i, c in enumerate(waiting)]
    chosen = select_batch(waiting, token_budget=budget)
    assert chosen == select_batch(waiting, token_budget=budget)
    assert len({c.key for c in chosen}) == len(chosen) >= 1
    assert {c.key for c in chosen} <= {c.key for c in waiting}
    assert len({(c.shape, c.group) for c in chosen}) == 1
    assert len(chosen) == 1 or sum(c.tokens for c in chosen) <= budget
    kind = (chosen[0].shape, chosen[0].group)
    left_out = [c for c in waiting if c not in chosen and (c.shape, c.group) == kind]
    free = budget - sum(c.tokens for c in chosen)
    assert all(c.tokens > free for c in left_out)


def owned(key: int, owner: str, *, weight: float = 1.0, remaining: int = 30) -> Candidate[int]:
    return replace(candidate(key, remaining=remaining), owner=owner, weight=weight)


def test_the_owner_with_fewer_candidates_goes_first() -> None:
    greedy = [owned(n, "greedy", remaining=30) for n in range(7)]
    assert selected([*greedy, owned(7, "modest", remaining=40)]) == [7]
    # Nearly finished work still goes first.
    greedy[3] = owned(3, "greedy", remaining=2)
    assert selected([*greedy, owned(7, "modest", remaining=40)]) == [3]


def test_the_owner_with_more_weight_goes_first() -> None:
    pair = [owned(0, "a", remaining=20), owned(1, "b", weight=4.0, remaining=40)]
    assert selected(pair) == [1]
    pair = [owned(0, "a", weight=0.25, remaining=20), owned(1, "b", remaining=40)]
    assert selected(pair) == [1]


@given(
    st.lists(st.builds(candidate, remaining=st.integers(1, 50), waited=st.integers(0, 500))),
    st.sampled_from([0.25, 1.0, 4.0]),
)
def test_a_single_owner_changes_nothing(waiting: list[Candidate[int]], weight: float) -> None:
    waiting = [replace(c, key=i) for i, c in enumerate(waiting)]
    owned = [replace(c, owner="a", weight=weight) for c in waiting]
    assert selected(owned) == selected(waiting)


def test_a_greedy_key_hardly_delays_the_others() -> None:
    shares, late = {}, {}
    for chooser, is_fair in ((without_owners, False), (shortest_first, True)):
        jobs = with_a_greedy_key(0.7, count=500, seed=1, greedy=150)
        simulate(jobs, chooser, max_running=8, is_fair=is_fair)
        assert all(job.finished is not None for job in jobs)
        others = [job for job in jobs if job.owner != "greedy"]
        shares[is_fair] = mean(job.slowdown <= 3 for job in others)
        late[is_fair] = quantiles([job.latency for job in others], n=20)[18]
    assert shares[True] > 0.75
    assert shares[True] - shares[False] > 0.15
    assert late[True] < late[False] / 10


def on_time(chooser: Chooser, load: float, seed: int) -> float:
    jobs = poisson_mix(load, count=1000, seed=seed)
    simulate(jobs, chooser, max_running=8)
    return mean(job.slowdown <= 3 for job in jobs)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nine_of_ten_jobs_are_on_time_at_seventy_percent_load(seed: int) -> None:
    assert on_time(shortest_first, 0.7, seed) >= 0.9
    assert on_time(first_come, 0.7, seed) < 0.8
    assert on_time(round_robin, 0.7, seed) < 0.8


@pytest.mark.parametrize("load", [0.7, 0.85])
def test_slowdown_on_a_mix_is_far_below_first_come_first_served(load: float) -> None:
    slowdowns = {}
    for chooser in (shortest_first, first_come):
        jobs = poisson_mix(load, count=300, seed=1)
        simulate(jobs, chooser)
        slowdowns[chooser] = mean(job.slowdown for job in jobs)
    assert slowdowns[shortest_first] < 0.5 * slowdowns[first_come]


def test_no_job_is_faster_than_alone_and_all_work_is_done() -> None:
    for chooser in (shortest_first, first_come, round_robin):
        jobs = poisson_mix(0.85, count=200, seed=5)
        simulate(jobs, chooser)
        assert min(job.slowdown for job in jobs) >= 1
        assert {job.remaining for job in jobs} == {0}


def test_steps_in_turn_serve_equal_jobs_equally() -> None:
    jobs = [SimulatedJob(i, 0.0, (128, 128), 2, 10) for i in range(3)]
    simulate(jobs, round_robin)
    ends = [job.latency / 8192 for job in jobs]
    assert ends == [28, 29, 30]


def test_short_jobs_finish_before_long_ones_of_the_same_age() -> None:
    jobs = [
        SimulatedJob(i, 0.0, (128, 128), 2, steps) for i, steps in enumerate([40, 8, 30, 20, 12])
    ]
    simulate(jobs, shortest_first)
    finished = sorted(jobs, key=lambda job: job.finished or 0)
    assert [job.service for job in finished] == sorted(job.service for job in jobs)


def endless_short_jobs(count: int) -> list[SimulatedJob]:
    """One long job, then a new short one at every step: more work than the engine can do."""
    long = SimulatedJob(0, 0.0, (128, 192), 2, 40)
    short = [SimulatedJob(i + 1, i * 4096.0, (128, 128), 1, 1) for i in range(count)]
    return [long, *short]


def test_ageing_bounds_the_wait_under_a_flood_of_short_jobs() -> None:
    bound = round(40 * 12288 / (AGEING * BUDGET))
    jobs = endless_short_jobs(bound + 100)
    simulate(jobs, shortest_first)
    assert 0 < jobs[0].waited <= bound
    assert all(job.finished is not None for job in jobs)
    without = endless_short_jobs(bound + 100)
    simulate(without, lambda waiting: select_batch(waiting, token_budget=BUDGET, ageing=0))
    assert without[0].waited == bound + 100


@pytest.mark.parametrize("seed", range(3))
def test_everyone_finishes_in_a_full_engine_that_is_always_overloaded(seed: int) -> None:
    jobs = poisson_mix(3.0, count=120, seed=seed)
    simulate(jobs, shortest_first, max_running=8)
    assert all(job.finished is not None for job in jobs)
    # After service / (ageing * budget) steps only the 7 that run beside a job then can still be
    # ahead of it, each for at most its 40 evaluations: whatever is admitted later is behind.
    assert all(job.waited <= job.service / (AGEING * BUDGET) + 7 * 40 for job in jobs)
