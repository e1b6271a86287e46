"""Makes Redis clients with short timeouts and few retries; tells outages from other errors.

redis-py retries every command ten times by default, even writes whose reply was lost. All writes of
this service are idempotent, so a broken connection is retried once or twice. The API does not retry
after a timeout, because its clients would wait twice as long for the same answer.
"""

import asyncio
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis import exceptions
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from worker.errors import QueueUnavailable, RedisLoading, RedisUnfit
from worker.redis_io.batching import ANSWER_SECONDS, BatchingRedis
from worker.redis_io.full_redis import UnlimitedRedis
from worker.redis_io.sentinel import connection_options, sentinel_url

SOCKET_SECONDS = ANSWER_SECONDS

_WAITS = ("socket_timeout", "socket_connect_timeout", "retry")

_OPTIONS = (
    *("db", "username", "password", "client_name"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname"),
)
"""Of a URL. With others redis-py would wait, retry or decode in another way than the callers."""

_MAX_DATABASES = 1 << 31
_NO_DATABASE = ("DB index is out of range", "SELECT is not allowed")

_REFUSALS = (
    *_NO_DATABASE,
    *("OOM", "READONLY", "MISCONF", "LOADING", "NOREPLICAS", "MASTERDOWN", "BUSY "),
    "Error compiling script",  # Redis before 7.0 does not know the flags of scripts
    "CROSSSLOT",  # a cluster
    "ACL failure in script",
    "WRONGTYPE",  # another program changed a key of the queue
)


def is_outage(exc: BaseException) -> bool:
    """Whether an error means that Redis is unreachable or refuses to write."""
    if isinstance(
        exc,
        exceptions.ConnectionError
        | exceptions.TimeoutError
        | exceptions.OutOfMemoryError
        | exceptions.ReadOnlyError
        | exceptions.NoPermissionError
        | OSError,
    ):
        return True
    return isinstance(exc, exceptions.ResponseError) and any(
        refusal in str(exc) for refusal in _REFUSALS
    )


@contextmanager
def unavailable_on_outage() -> Iterator[None]:
    """Turn errors that mean an outage of Redis into QueueUnavailable."""
    try:
        yield
    except (exceptions.RedisError, OSError) as exc:
        if not is_outage(exc):
            raise
        if isinstance(exc, exceptions.OutOfMemoryError):
            raise RedisUnfit("Redis takes no jobs: it has reached its maxmemory") from exc
        if isinstance(exc, exceptions.BusyLoadingError):
            raise RedisLoading("Redis is loading its data") from exc
        refusal = exceptions.AuthenticationError | exceptions.NoPermissionError
        is_refusal = isinstance(exc, refusal) or isinstance(exc.__cause__, refusal)
        if is_refusal or any(words in str(exc) for words in ("ACL failure", *_NO_DATABASE)):
            raise RedisUnfit(f"Redis refuses this service: {exc}") from exc
        if "WRONGTYPE" in str(exc):
            raise RedisUnfit(f"another program changed a key of the queue: {exc}") from exc
        raise QueueUnavailable(f"Redis does not answer or refuses to write: {exc}") from exc


def _with_redis_scheme(url: str) -> str:
    """Translate Valkey's schemes, which redis-py does not know."""
    scheme, _, rest = url.partition("://")
    known = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    return f"{known}://{rest}"


def check_url(url: str) -> None:
    """Check that connections can be made with a URL, without making one.

    Raises:
        ValueError: they cannot. The message shows no part of the URL, as it may be a password.
    """
    _check_readable(url)
    try:
        _load_certificates(connect(url).connection_pool.connection_kwargs)
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is none"
        raise ValueError(
            f"KIRAZURI_REDIS_URL names a certificate or key that cannot be read: {reason}"
        ) from None


def _check_readable(url: str) -> None:
    try:
        is_sound = _is_sound(url)
    except Exception:  # noqa: BLE001 - options of the URL raise anything
        is_sound = False
    if not is_sound:
        raise ValueError(
            "KIRAZURI_REDIS_URL cannot be read: it is like redis://:PASSWORD@HOST:6379/0 or "
            f"redis+sentinel://HOST:26379/SERVICE/0, its options are {', '.join(_OPTIONS)}, and "
            "/ ? # @ [ ] & of a password are written as %2F %3F %23 %40 %5B %5D %26"
        )


def _load_certificates(options: Mapping[str, Any]) -> None:
    """Load the files that the options of TLS name, as each connection will."""
    if not any(name.startswith("ssl_") for name in options):
        return
    context = ssl.create_default_context()
    places = [options.get(f"ssl_ca_{kind}") for kind in ("certs", "path", "data")]
    if any(places):
        context.load_verify_locations(*places)
    if own := options.get("ssl_certfile"):
        # Without a password, OpenSSL would ask the terminal for one.
        context.load_cert_chain(own, options.get("ssl_keyfile"), options.get("ssl_password", ""))


def _is_sound(url: str) -> bool:
    """Whether each part of a URL has its meaning, and a connection can be made with them."""
    parts = urlsplit(url)
    is_server = "sentinel" not in parts.scheme and parts.scheme != "unix"
    if is_server and not re.fullmatch("/?|/[0-9]+", parts.path):
        return False  # redis-py would use database 0, or join the parts to another number
    if parts.scheme == "unix" and (parts.hostname or not parts.path):
        return False  # unix://tmp/redis.sock would be /redis.sock
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if not all(name.removeprefix("sentinel_") in _OPTIONS for name in names):
        return False
    url.encode()  # what is no UTF-8 cannot be sent
    behind = sentinel_url(url)
    hosts = [host for host, _ in behind.sentinels] if behind else [parts.hostname or ""]
    for host in hosts:
        host.encode("idna")  # as the look-up of its address does
    with connect(url) as client:
        pool = client.connection_pool
        pool.make_connection()
        return pool.connection_kwargs.get("db", 0) in range(_MAX_DATABASES)


def check_database(url: str) -> None:
    """Check that the server has the database of a URL; one that does not answer may have it.

    Raises:
        ValueError: it has not.
    """
    with connect(url) as client:
        if not client.connection_pool.connection_kwargs.get("db"):
            return  # 0, which every server has
        client.set_retry(Retry(NoBackoff(), 0))
        try:
            client.ping()
        except (exceptions.RedisError, OSError) as exc:
            if any(refusal in str(exc) for refusal in _NO_DATABASE):
                raise ValueError(
                    f"KIRAZURI_REDIS_URL names a database that its server does not have: {exc}"
                ) from None


def connect_async(url: str, *, max_connections: int = 4) -> redis.asyncio.Redis:
    """A client for the API; waits up to two seconds for a reply. Callers share its connections."""
    options: dict[str, Any] = {
        # For transactions only; all else is timed by the client.
        "socket_timeout": 3 * SOCKET_SECONDS,
        "socket_connect_timeout": 3 * SOCKET_SECONDS,
        # No `health_check_interval`: if Redis wants a password and none is set, redis-py 8.1 then
        # connects again and again, without an error. Broken connections are found without it.
        "decode_responses": True,
        "retry": redis.asyncio.retry.Retry(
            ExponentialBackoff(cap=0.1, base=0.02),
            1,
            supported_errors=(exceptions.ConnectionError,),
        ),
    }
    sentinels_url = sentinel_url(url)
    if sentinels_url is not None:
        to_sentinels, to_master = connection_options(sentinels_url)
        waits = {name: options[name] for name in _WAITS}
        sentinel_class: Any = redis.asyncio.sentinel.Sentinel
        sentinel = sentinel_class(sentinels_url.sentinels, sentinel_kwargs=to_sentinels | waits)
        # This pool does not wait for a free connection, so there are more for transactions.
        client: redis.asyncio.Redis = sentinel.master_for(
            sentinels_url.service,
            redis_class=BatchingRedis,
            **(to_master | options),
            max_connections=2 * max_connections,
        )
        return client
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        _with_redis_scheme(url), max_connections=max_connections, timeout=SOCKET_SECONDS, **options
    )
    return BatchingRedis.from_pool(pool)


async def disconnect(client: redis.asyncio.Redis) -> None:
    """Close a client of `connect_async` and its connections to sentinels, even if cancelled."""
    closing = asyncio.create_task(_close(client))
    is_cancelled = False
    while not closing.done():
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


async def _close(client: redis.asyncio.Redis) -> None:
    await client.aclose()
    pool = client.connection_pool
    if isinstance(pool, redis.asyncio.sentinel.SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def connect(url: str) -> "redis.Redis":
    """A client for the worker, which may exceed `maxmemory`; replies are bytes, as RQ expects."""
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "health_check_interval": 10,
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
    }
    sentinels_url = sentinel_url(url)
    if sentinels_url is not None:
        to_sentinels, to_master = connection_options(sentinels_url)
        waits = {name: options[name] for name in _WAITS}
        sentinel_class: Any = redis.sentinel.Sentinel  # untyped in redis-py
        sentinel = sentinel_class(sentinels_url.sentinels, sentinel_kwargs=to_sentinels | waits)
        master: redis.Redis = sentinel.master_for(
            sentinels_url.service, UnlimitedRedis, **(to_master | options)
        )
        return master
    return UnlimitedRedis.from_url(_with_redis_scheme(url), **options)
