"""How often a worker asks Redis: one round trip for all its jobs, at the pace of its rounds."""

import itertools
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.connection import Connection, UnixDomainSocketConnection

from tests.support.fake_engine import MISBEHAVIOUR_STEP
from tests.support.queue_steps import follow_events
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import async_wait_until, wait_until
from worker.queue.job_queue import JobQueue
from worker.queue.scripts.lua_script import LuaScript
from worker.runtime.batch_worker import BatchWorker
from worker.runtime.watchdog import Watchdog

Sent = list[Counter[str]]


@pytest.fixture
def sent(redis_client: "Redis", monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What control loops send: for each round trip that calls scripts, how often it calls each.

    Also the number of its reports on an image.
    """
    names = {
        LuaScript(redis_client, name)._script.sha.encode(): name
        for name in ("claim", "report", "commit", "release", "maintain")
    }
    trips: Sent = []
    send = Connection.send_packed_command

    def watched(connection: Connection, command: Any, *args: Any, **options: Any) -> None:
        if threading.current_thread().name == "control":
            packed = b"".join(command) if isinstance(command, list) else command
            calls = {name: packed.count(sha) for sha, name in names.items()}
            calls["image"] = packed.count(b"\r\nimage\r\n")  # the event
            if any(calls.values()):
                trips.append(Counter(calls))
        send(connection, command, *args, **options)  # type: ignore[no-untyped-call]

    for kind in (Connection, UnixDomainSocketConnection):
        monkeypatch.setattr(kind, "send_packed_command", watched)
    return trips


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each round of a control loop began."""
    began: list[float] = []
    make_round = BatchWorker._make_round

    def watched(worker: BatchWorker) -> None:
        began.append(time.monotonic())
        make_round(worker)

    monkeypatch.setattr(BatchWorker, "_make_round", watched)
    return began


async def test_claims_and_ends_of_many_jobs_share_a_round_trip(
    queue: JobQueue, run_worker: RunWorker, sent: Sent, rounds: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    handle_events, has_waited = BatchWorker._handle_events, list[bool]()
    events = 10 * (MISBEHAVIOUR_STEP + 1)  # each job starts, makes the steps before, and fails

    def handle_together(worker: BatchWorker, seconds: float) -> None:
        """The loop learns of the first failure when all are there."""
        if len(worker.slots) == 10 and not has_waited:
            wait_until(lambda: worker.engine.events.qsize() >= events)
            has_waited.append(True)
        handle_events(worker, seconds)

    monkeypatch.setattr(BatchWorker, "_handle_events", handle_together)
    jobs = [await queue.admit(make_request("nan", seed=seed)) for seed in range(10)]
    with run_worker(changes={"max_running": 10}):
        done = [await queue.wait(job.id, 60) for job in jobs]
    assert {job.status for job in done} == {"failed"}
    assert len({job.started_at for job in done}) == 1, "one call claims them all"
    assert max(trip["commit"] for trip in sent) == 10
    loading = 3  # Redis does not know the scripts at first; then a round trip is repeated
    assert len(sent) <= len(rounds) + loading


async def test_a_round_of_a_worker_with_jobs_reports_claims_and_asks_at_once(
    queue: JobQueue, run_worker: RunWorker, sent: Sent, rounds: list[float], tmp_path: Path,
    redis_client: "Redis",
) -> None:  # fmt: skip
    go = tmp_path / "go"
    jobs = [await queue.admit(make_request(f"until={go}", seed=seed)) for seed in range(3)]
    redis_client.config_resetstat()
    with run_worker() as worker:
        await async_wait_until(lambda: len(worker.slots) == 3)
        first, before = len(sent), len(rounds)
        await async_wait_until(lambda: len(rounds) > before + 20)
        during, times = sent[first:], rounds[before:]
        go.touch()
        for job in jobs:
            assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert all(trip["report"] == 1 and trip["claim"] == 1 for trip in during)
    pauses = [after - before for before, after in pairwise(times)]
    assert min(pauses) >= 0.05
    stats: Any = redis_client.info("commandstats")
    assert not {"cmdstat_lmove", "cmdstat_blmove"} & set(stats)


async def test_a_job_ends_in_the_round_trip_that_reports_its_image(
    queue: JobQueue, run_worker: RunWorker, sent: Sent
) -> None:
    job = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert [trip["image"] for trip in sent if trip["commit"]] == [1]
    assert sum(trip["image"] for trip in sent) == 1


async def test_the_loop_sleeps_until_the_next_round(
    queue: JobQueue, run_worker: RunWorker, rounds: list[float], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    turns, tokens = itertools.count(), itertools.count()
    check = Watchdog.check

    def watched(watchdog: Watchdog) -> None:
        next(turns)
        check(watchdog)

    def counted() -> UUID:
        next(tokens)
        return uuid4()

    monkeypatch.setattr(Watchdog, "check", watched)
    monkeypatch.setattr("worker.runtime.batch_worker.uuid4", counted)
    go = tmp_path / "go"
    jobs = [await queue.admit(make_request(f"until={go}", seed=seed)) for seed in range(8)]
    with run_worker(changes={"heartbeat_seconds": 1e9, "lease_seconds": 1e9}) as worker:
        await async_wait_until(lambda: len(worker.slots) == 8)
        before, first, first_token = len(rounds), next(turns), next(tokens)
        await async_wait_until(lambda: len(rounds) >= before + 10)
        used, last, last_token = len(rounds) - before, next(turns), next(tokens)
        go.touch()
        for job in jobs:
            assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert last - first <= 3 * used  # a sleep may end a moment too soon
    assert last_token - first_token == 1, "tokens that got no job are used again"
    assert min(after - before for before, after in pairwise(rounds[before:][:used])) >= 0.1


async def test_what_the_engine_and_the_publisher_have_wakes_the_loop(
    queue: JobQueue, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ROUND_SECONDS", "_LONGEST_ROUND_SECONDS"):
        monkeypatch.setattr(f"worker.runtime.batch_worker.{name}", 90)
    with run_worker(changes={"lease_seconds": 1e9}) as worker:
        await async_wait_until(lambda: worker.engine.is_warm)
        worker.engine.wake()  # its first round was before that
        job = await queue.admit(make_request(num_images=2))
        assert (await queue.wait(job.id, 30)).status == "succeeded"


async def test_reports_on_other_jobs_wait_while_one_ends(
    queue: JobQueue, run_worker: RunWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ROUND_SECONDS", "_LONGEST_ROUND_SECONDS"):
        monkeypatch.setattr(f"worker.runtime.batch_worker.{name}", 90)
    short, long = [await queue.admit(make_request(steps=steps)) for steps in (2, 30)]
    with run_worker(changes={"lease_seconds": 1e9}) as worker:
        await async_wait_until(lambda: worker.engine.is_warm)
        worker.engine.wake()
        assert (await queue.wait(short.id, 30)).status == "succeeded"
        assert (await queue.wait(long.id, 30)).status == "succeeded"
    end = [event async for event in follow_events(queue, short.id)][-1]
    steps = [event async for event in follow_events(queue, long.id) if event.event == "progress"]
    assert len(steps) == 30
    assert all(_order(event.id) > _order(end.id) for event in steps)


def _order(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.split("-")))
