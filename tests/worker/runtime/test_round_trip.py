"""How often a worker asks Redis: one round trip for all its jobs, at the pace of its rounds."""

import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import Connection, UnixDomainSocketConnection

from model.engine.protocol import Failed
from model.resolved_request import ResolvedRequest
from tests.support.fake_engine import FakeEngine
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import async_wait_until, wait_until
from worker.queue.job_queue import JobQueue
from worker.queue.scripts.lua_script import LuaScript
from worker.runtime.batch_worker import BatchWorker

Sent = list[Counter[str]]


@pytest.fixture
def sent(redis_client: "Redis", monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What control loops send: for each round trip that calls scripts, how often it calls each."""
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
    failed: list[str] = []

    class Counting(FakeEngine):
        def _misbehave(self, job_id: str, request: ResolvedRequest) -> Failed | None:
            failed.append(job_id)
            return super()._misbehave(job_id, request)

    handle_events = BatchWorker._handle_events

    def handle_together(worker: BatchWorker, seconds: float) -> None:
        """All jobs fail before the loop learns of the first one."""
        if len(worker.slots) == 10:
            wait_until(lambda: len(failed) == 10 and worker.engine.stats.forwards >= 2)
        handle_events(worker, seconds)

    monkeypatch.setattr(BatchWorker, "_handle_events", handle_together)
    jobs = [await queue.admit(make_request("nan", seed=seed)) for seed in range(10)]
    with run_worker(kind=Counting, changes={"max_running": 10}):
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
    assert all(trip["report"] >= 3 and trip["claim"] == 1 for trip in during)
    pauses = [after - before for before, after in pairwise(times)]
    assert min(pauses) >= 0.05
    stats: Any = redis_client.info("commandstats")
    assert not {"cmdstat_lmove", "cmdstat_blmove"} & set(stats)
