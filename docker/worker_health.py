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
            worker.is_warm and worker.name.startswith(own) for worker in await queue.state.workers()
        )
    finally:
        await queue.close()


if __name__ == "__main__":
    sys.exit(not asyncio.run(is_warm()))
