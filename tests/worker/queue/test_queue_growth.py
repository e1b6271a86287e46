"""What a step costs does not grow with the number of waiting jobs.

Counted are the commands that the server runs, also those of scripts. Commands that cost by the
length of a list are allowed only on RQ's list, which holds no waiting job.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis import Redis
from ulid import ULID

from tests.support.queue_steps import RQ_LIST, maintain, take_next, waiting
from tests.support.requests import make_request
from worker.queue.job_queue import JobQueue
from worker.queue.layout import record, redis_keys, rq_layout
from worker.queue.scripts.admission import admit_arguments
from worker.queue.scripts.lua_script import LuaScript
from worker.queue.worker_queue import WorkerQueue
from worker.settings import Settings

FEW, MANY = 500, 2000
LINE = f"{redis_keys.PREFIXES['fair']}{rq_layout.QUEUE}:::line:owner0"


def fill(client: "Redis", settings: Settings, count: int, owners: int) -> set[str]:
    """Queue jobs of these owners in turn; returns the ids of the first owner's."""
    first = set()
    admit, pipeline = LuaScript(client, "admit"), client.pipeline(transaction=False)
    for number in range(count):
        owner, job_id = f"owner{number % owners}", str(ULID())
        if number % owners == 0:
            first.add(job_id)
        fields = record.new_record(make_request(), warnings=(), traceparent=None, owner=owner)
        admit(job_id, *admit_arguments(fields, settings), client=pipeline)
    pipeline.execute()
    return first


def commands_run(client: "Redis") -> int:
    """How many commands the server has run, without INFO."""
    stats: Any = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name != "cmdstat_info")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_queue": 2 * MANY})


@pytest.mark.parametrize("owners", [1, 100])
async def test_no_step_takes_more_commands_with_more_jobs(
    queue: JobQueue,
    redis_client: "Redis",
    worker_queue: WorkerQueue,
    settings: Settings,
    owners: int,
) -> None:
    own = queue.owned_by("owner0")

    async def costs() -> dict[str, int]:
        oldest, *_, newest = [job_id for job_id in waiting(redis_client) if job_id in ids]
        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "accept": lambda: own.admit(make_request()),
            "look": lambda: own.get(oldest),
            "list": lambda: own.jobs(limit=2),
            "forecast": lambda: own.forecast(make_request()),
            "cancel newest": lambda: own.cancel(newest),
            "cancel oldest": lambda: own.cancel(oldest),
            "counters": queue.state.counters,
        }
        cost = {}
        for name, step in steps.items():
            before = commands_run(redis_client)
            await step()
            cost[name] = commands_run(redis_client) - before
        before = commands_run(redis_client)
        (claim,) = take_next(worker_queue)
        cost["claim"] = commands_run(redis_client) - before
        ids.discard(claim.job_id)
        return cost

    ids = fill(redis_client, settings, FEW, owners)
    await costs()  # the scripts are loaded
    few = await costs()
    ids |= fill(redis_client, settings, MANY, owners)
    many = await costs()
    assert {name: cost for name, cost in many.items() if cost > 1.2 * few[name]} == {}
    assert redis_client.llen(RQ_LIST) == 0


async def test_a_search_for_lost_jobs_looks_at_a_few_at_a_time(
    redis_client: "Redis",
    worker_queue: WorkerQueue,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.queue.worker_queue._MISSING_SECONDS", -1)
    fill(redis_client, settings, MANY, 1)
    assert maintain(worker_queue).restored == ()  # the script is loaded
    lines: Any = redis_client.zrange(LINE, 0, -1)
    redis_client.delete(LINE)
    found: set[str] = set()
    while len(found) < MANY:
        before = commands_run(redis_client)
        found |= set(maintain(worker_queue).restored)
        assert commands_run(redis_client) - before < 25 * 500
    assert found == {job_id.decode() for job_id in lines}
