"""Concurrent callers share round trips and connections."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from redis import exceptions

from worker.redis_io.batching import BatchingRedis, _within_time
from worker.redis_io.client import connect_async, disconnect

CALLERS = 300


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    opened = connect_async(redis_url, max_connections=1)
    yield opened
    await disconnect(opened)


async def reads(client: redis.asyncio.Redis) -> int:
    """How often the server has read from its connections, including for this question."""
    stats: Any = await client.info("stats")
    return int(stats["total_reads_processed"])


async def test_commands_of_one_step_share_a_round_trip_in_their_order(
    client: redis.asyncio.Redis,
) -> None:
    before = await reads(client)
    replies = await asyncio.gather(*(client.incr("n") for _ in range(10)), client.get("n"))
    assert replies == [*range(1, 11), "10"]
    assert await reads(client) - before == 2  # the second is this question


async def test_more_callers_than_connections_all_get_an_answer(redis_url: str) -> None:
    # This pool does not wait for a free connection.
    pool = redis.asyncio.ConnectionPool.from_url(redis_url, max_connections=1)
    client = BatchingRedis.from_pool(pool)
    counts = await asyncio.gather(*(client.incr("n") for _ in range(CALLERS)))
    assert counts == list(range(1, CALLERS + 1))
    await disconnect(client)


async def test_a_pipeline_joins_and_loads_unknown_scripts(client: redis.asyncio.Redis) -> None:
    script: Any = client.register_script("return ARGV[1]")
    for _ in range(2):
        pipeline = client.pipeline(transaction=False)
        pipeline.set("a", "1")
        await script(args=["x"], client=pipeline)
        pipeline.get("a")
        assert await pipeline.execute() == [True, "x", "1"]
    await client.script_flush()
    assert await script(args=["y"]) == "y"


async def test_a_mistake_of_one_caller_does_not_disturb_others(
    client: redis.asyncio.Redis,
) -> None:
    await client.set("text", "x")
    nothing: Any = None
    found = await asyncio.gather(
        client.incr("text"), client.set("b", nothing), client.incr("n"), return_exceptions=True
    )
    assert isinstance(found[0], exceptions.ResponseError)
    assert isinstance(found[1], exceptions.DataError)
    assert found[2] == 1
    await client.lpush("list", b"\xff")
    unreadable, number = await asyncio.gather(
        client.lrange("list", 0, -1), client.incr("n"), return_exceptions=True
    )
    assert isinstance(unreadable, UnicodeDecodeError)
    assert number in (2, 3), "it may have been sent twice"


async def test_a_cancelled_caller_leaves_the_others_alone(client: redis.asyncio.Redis) -> None:
    first, second = (asyncio.ensure_future(client.incr("n")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    assert first.cancelled()


async def test_an_outage_fails_everybody_who_waits() -> None:
    client = connect_async("redis://127.0.0.1:9", max_connections=1)
    found = await asyncio.gather(*(client.get("a") for _ in range(CALLERS)), return_exceptions=True)
    assert {type(one) for one in found} == {exceptions.ConnectionError}
    await disconnect(client)


async def test_closing_ends_commands_without_an_answer(client: redis.asyncio.Redis) -> None:
    waiting = [asyncio.ensure_future(client.blpop(["nothing"], 1)) for _ in range(3)]
    await asyncio.sleep(0)
    await disconnect(client)
    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)


async def test_a_busy_event_loop_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.redis_io.batching.ANSWER_SECONDS", 0.05)
    steps = 0

    async def read_a_reply() -> None:
        nonlocal steps
        for _ in range(10):
            time.sleep(0.02)  # noqa: ASYNC251 - other requests keep the loop busy
            await asyncio.sleep(0)
            steps += 1

    await _within_time(read_a_reply())
    assert steps == 10


async def test_a_redis_that_does_not_answer_is_an_outage(
    client: redis.asyncio.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.redis_io.batching.ANSWER_SECONDS", 0.2)
    with pytest.raises(exceptions.TimeoutError):
        await client.blpop(["nothing"], 30)
    monkeypatch.undo()
    assert await client.incr("n") == 1, "on a new connection"
