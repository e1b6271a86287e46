"""Checks the Redis of KIRAZURI_REDIS_URL before the service starts."""

import contextlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import redis
import redis.sentinel
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.queue.scripts.lua_script import check_server
from worker.redis_io.client import check_url, connect
from worker.redis_io.server_faults import faults_against_start
from worker.settings import Settings

_PATIENCE_SECONDS = 5.0
"""For a Redis that starts together with the service."""

_PAUSE_SECONDS = 0.5

_NOT_THERE = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)


class RedisUnusableError(Exception):
    """The Redis cannot be used; the message says why."""


def check_redis(url: str, settings: Settings, report: Callable[[str], None]) -> None:
    """Return once the Redis answers; wait a few seconds for one that does not.

    Waits as long as it takes for one that is loading its data; `report` gets lines about it.

    Raises:
        RedisUnusableError: it does not answer, it refuses this client, or it may lose jobs.
    """
    try:
        check_url(url)
    except ValueError as exc:
        raise RedisUnusableError(str(exc)) from exc
    _wait_until_usable(url, settings, report)


def _wait_until_usable(url: str, settings: Settings, report: Callable[[str], None]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    is_reported = False
    while True:
        try:
            with contextlib.closing(connect(url)) as client:
                client.set_retry(Retry(NoBackoff(), 0))
                client.ping()
                faults = check_server(client).reasons(faults_against_start(settings))
        except exceptions.BusyLoadingError:
            if not is_reported:
                report("redis is loading its data; the service waits for it")
            is_reported = True
        except exceptions.AuthenticationError as exc:
            has_password = "@" in urlsplit(url).netloc
            reason = "refuses the user or password" if has_password else "requires a password"
            raise RedisUnusableError(f"{_place(url)} {reason}") from exc
        except _NOT_THERE as exc:
            if time.monotonic() > deadline:
                raise RedisUnusableError(f"{_place(url)} does not answer: {_why(exc)}") from exc
        except exceptions.RedisError as exc:
            raise RedisUnusableError(f"{_place(url)} cannot be used: {exc}") from exc
        else:
            if faults:
                raise RedisUnusableError(f"{_place(url)} cannot be used: {'; '.join(faults)}")
            return
        time.sleep(_PAUSE_SECONDS)


def _place(url: str) -> str:
    """The server as messages name it: the URL without user, password and options."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].rpartition("@")[2]  # an option may have an @
    return f"the Redis of KIRAZURI_REDIS_URL ({scheme}://{place})"


def _why(exc: Exception) -> str:
    if isinstance(exc, redis.sentinel.MasterNotFoundError):
        return "no sentinel answers and knows a master of this name"
    text = str(exc).rstrip(".")
    if "certificate" in text:
        return text
    if "SSL" in text or "Timeout" in text:
        return f"{text} (rediss:// and valkeys:// need a server that speaks TLS)"
    if "closed by server" in text or "reset by peer" in text:
        return f"{text} (a server that speaks TLS needs rediss:// or valkeys://)"
    return text
