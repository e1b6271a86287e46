"""Health check of a worker container: succeeds if the worker on this host is warm."""

import asyncio
import socket
import sys

from worker.queue.job_queue import JobQueue
from worker.settings import Settings, redis_dsn


async def is_warm() -> bool:
    """Whether the worker is warm according to Redis.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    settings = Settings()
    queue = JobQueue(redis_dsn(settings), settings)
    try:
        own = f"{socket.gethostname()}-"
        return any(
            seen.status.is_warm
            and seen.status.name.startswith(own)
            and seen.age <= settings.lease_seconds  # a killed worker's last word is older
            for seen in await queue.state.heartbeats()
        )
    finally:
        await queue.close()


if __name__ == "__main__":
    sys.exit(not asyncio.run(is_warm()))
