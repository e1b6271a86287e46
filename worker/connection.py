"""Redis clients with bounded waits and few retries, and which of their errors mean an outage.

redis-py retries ten times by default, also writes whose reply was lost; every write here is
idempotent by id, so a broken connection is tried again once or twice, and a silent one not at all
by the API: its clients would wait twice as long for the same answer.
"""

import redis
import redis.asyncio
from redis import exceptions
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

SOCKET_SECONDS = 2.0

_REFUSALS = ("OOM", "READONLY", "MISCONF", "LOADING", "NOREPLICAS", "MASTERDOWN", "BUSY ")


def is_outage(exc: BaseException) -> bool:
    """Whether an error says that Redis is away or refuses to write, and not that we are wrong."""
    if isinstance(
        exc,
        exceptions.ConnectionError
        | exceptions.TimeoutError
        | exceptions.OutOfMemoryError
        | exceptions.ReadOnlyError
        | OSError,
    ):
        return True
    return isinstance(exc, exceptions.ResponseError) and any(
        refusal in str(exc) for refusal in _REFUSALS
    )


def connect_async(url: str, *, max_connections: int = 20) -> redis.asyncio.Redis:
    """A client for the API: waits at most two seconds for a free connection or a reply."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=SOCKET_SECONDS,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        health_check_interval=10,
        decode_responses=True,
        retry=redis.asyncio.retry.Retry(
            ExponentialBackoff(cap=0.1, base=0.02),
            1,
            supported_errors=(exceptions.ConnectionError,),
        ),
    )
    return redis.asyncio.Redis.from_pool(pool)


def connect(url: str) -> "redis.Redis":
    """A client for the worker. RQ reads bytes, so replies are not decoded."""
    return redis.Redis.from_url(
        url,
        socket_timeout=SOCKET_SECONDS,
        socket_connect_timeout=SOCKET_SECONDS,
        health_check_interval=10,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
    )
