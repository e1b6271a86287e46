"""Fixtures: a service that sends webhooks to loopback, and receivers."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from redis import Redis

from tests.support.receiver import Receiver
from tests.support.webhooks import SECRET, MakeReceiver
from worker.redis_io.server import RedisServer
from worker.settings import Settings


@pytest.fixture(scope="package")
def settings(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    with Redis.from_url(shared_redis.url) as connection:
        connection.flushall()  # an API that has seen a key requires one until it restarts
    return Settings(
        _env_file=None,
        redis_url=shared_redis.url,
        data_dir=tmp_path_factory.mktemp("data"),
        card="kirazuri-tiny",
        max_queue=100,
        webhook_secret=SECRET,
        webhook_allow_http=True,
        webhook_networks="127.0.0.1/32",
        webhook_retry_seconds="0.01,0.02",
        webhook_timeout_seconds=60,
    )


@pytest.fixture(autouse=True)
def _fast_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.webhooks.sender._POLL_SECONDS", 0.02)


@pytest.fixture
def receiver() -> Iterator[MakeReceiver]:
    """Makes receivers and closes them after the test."""
    made: list[Receiver] = []

    def make(*answers: int | Callable[[BaseHTTPRequestHandler], None], **options: Any) -> Receiver:
        made.append(Receiver(*answers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
