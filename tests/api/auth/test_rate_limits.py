"""Tests the connections that rate limits use."""

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
