"""Tests the connections that rate limits use."""

from typing import Any

from redis import Redis

from api.auth.key_limits import RateLimits
from worker.queue.job_queue import JobQueue
from worker.settings import Settings


async def test_rates_are_counted_through_the_connections_of_the_queue(redis_url: str) -> None:
    queue = JobQueue(redis_url, Settings(_env_file=None))
    await queue.ping()
    with Redis.from_url(redis_url) as client:
        before = len(client.client_list())
        await RateLimits(queue.client).hit("owner", "5/minute")
        assert len(client.client_list()) == before
    await queue.close()


async def test_a_submission_is_counted_in_one_round_trip(redis_url: str) -> None:
    queue = JobQueue(redis_url, Settings(_env_file=None))
    rates = RateLimits(queue.client)
    states = [await rates.hit("owner", "3/minute")]  # loads the scripts

    def reads(client: "Redis") -> int:
        stats: Any = client.info("stats")
        return int(stats["total_reads_processed"])

    with Redis.from_url(redis_url) as client:
        before = reads(client)
        states.append(await rates.hit("owner", "3/minute"))
        assert reads(client) - before == 2  # the second is this question
    states += [await rates.hit("owner", "3/minute") for _ in range(2)]
    assert [(is_allowed, state.left) for is_allowed, state in states] == [
        (True, 2), (True, 1), (True, 0), (False, 0),
    ]  # fmt: skip
    await queue.close()
