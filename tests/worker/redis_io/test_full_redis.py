"""Writes to a Redis that has reached `maxmemory`."""

from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError

from worker.redis_io.client import connect


def add_commands(client: "Pipeline | Redis") -> list[Any]:
    """Commands with replies of every kind."""
    return [
        client.set("text", 1, ex=60),
        client.set("text", 1, nx=True),
        client.incr("number"),
        client.hset("hash", mapping={"field": 1}),
        client.hgetall("hash"),
        client.sadd("set", "one", "two"),
        client.smembers("set"),
        client.zadd("sorted", {"member": 1.5}),
        client.zincrby("sorted", 1, "member"),
        client.zrange("sorted", 0, -1, withscores=True),
        client.rpush("list", "one"),
        client.lmove("list", "other", "LEFT", "RIGHT"),
        client.lmove("nothing", "other", "LEFT", "RIGHT"),
        client.get("nothing"),
        client.expire("hash", 60),
        client.ttl("nothing"),
        client.xlen("stream"),
    ]


@pytest.fixture
def full(redis_url: str) -> Any:
    """A function that fills Redis; it has room again after the test."""
    with Redis.from_url(redis_url) as client:
        yield lambda: client.config_set("maxmemory", "1")
        client.config_set("maxmemory", "0")


@pytest.mark.parametrize("is_transaction", [True, False])
def test_a_full_redis_answers_like_one_with_room(
    is_transaction: bool, redis_url: str, full: Any
) -> None:
    with connect(redis_url) as client:
        replies = []
        for fill in (lambda: None, full):
            client.flushall()
            fill()
            one_by_one = add_commands(client)
            client.flushall()
            with client.pipeline(transaction=is_transaction) as pipeline:
                add_commands(pipeline)
                together = pipeline.execute()
            replies.append((one_by_one, together))
    with_room, without_room = replies
    assert with_room == without_room


def test_scripts_decide_for_themselves(redis_url: str, full: Any) -> None:
    full()
    with connect(redis_url) as client:
        with pytest.raises(OutOfMemoryError):
            client.eval("return redis.call('SET', 'key', 1)", 0)
        with client.pipeline() as pipeline:
            pipeline.set("text", 1)
            pipeline.eval("return redis.call('SET', 'key', 1)", 0)
            with pytest.raises(OutOfMemoryError):
                pipeline.execute()


def test_another_error_stays(redis_url: str, full: Any) -> None:
    full()
    with connect(redis_url) as client, client.pipeline(transaction=False) as pipeline:
        client.set("text", "a")
        pipeline.set("other", "b")
        pipeline.incr("text")
        other, wrong = pipeline.execute(raise_on_error=False)
    assert other is True
    assert "not an integer" in str(wrong)
