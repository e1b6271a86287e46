"""The service behind a real uvicorn and a real Redis; a hand that plays the worker's part."""

from collections.abc import Iterator

import httpx2
import pytest
from redis import Redis

from tests.support.api_server import Running
from tests.support.manual_worker import Hand
from worker.redis_io.client import connect
from worker.redis_io.server import RedisServer
from worker.settings import Settings


@pytest.fixture(scope="module")
def settings(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    with Redis.from_url(shared_redis.url) as connection:
        connection.flushall()  # a server that has once seen API keys asks for them ever after
    return Settings(
        _env_file=None,
        redis_url=shared_redis.url,
        data_dir=tmp_path_factory.mktemp("data"),
        card="kirazuri-tiny",
        max_queue=5,
        max_wait_seconds=1,
        max_rating="explicit",  # the policy changes no prompt; its own tests set another
    )


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    with Running(settings) as running:
        yield running


@pytest.fixture
def client(server: Running, redis_url: str) -> Iterator[httpx2.Client]:
    """A client of the module's server; Redis is empty."""
    with httpx2.Client(base_url=server.url, timeout=20) as opened:
        yield opened


@pytest.fixture
def hand(redis_url: str, settings: Settings) -> Iterator[Hand]:
    """A worker's part, played by the test."""
    with connect(redis_url) as connection:
        yield Hand(connection, settings)
