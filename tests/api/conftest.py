"""Fixtures: an API behind a real uvicorn and a real Redis, and a worker that the test drives."""

from collections.abc import Iterator

import httpx2
import pytest
from redis import Redis

from tests.support.api_keys import LISTENS_TO_ALL
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from worker.redis_io.client import connect
from worker.redis_io.server import RedisServer
from worker.settings import Settings


@pytest.fixture(scope="session", autouse=True)
def _fast_key_refresh() -> Iterator[None]:
    """API processes in this one notice new and revoked keys at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.auth.key_cache.REFRESH_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_keepalives() -> Iterator[None]:
    """A stream without events fails after the timeout of its client, which comments would renew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.http.sse.KEEPALIVE_SECONDS", 3600.0)
        yield


@pytest.fixture(scope="module")
def settings(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    with Redis.from_url(shared_redis.url) as connection:
        connection.flushall()  # an API that has seen a key requires one until it restarts
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
def server(settings: Settings) -> Iterator[ApiServer]:
    with ApiServer(settings) as running:
        yield running


@pytest.fixture
def client(server: ApiServer, redis_url: str) -> Iterator[httpx2.Client]:
    """A client of the module's server, with an empty Redis."""
    with httpx2.Client(base_url=server.url, timeout=60) as opened:
        yield opened


@pytest.fixture
def worker(redis_url: str, settings: Settings) -> Iterator[ManualWorker]:
    """A worker that the test drives."""
    with connect(redis_url) as connection:
        yield ManualWorker(connection, settings)


@pytest.fixture(scope="module")
def public_server(settings: Settings) -> Iterator[ApiServer]:
    """A server that other machines reach, so it requires keys."""
    with ApiServer(settings.model_copy(update={"listen": LISTENS_TO_ALL})) as running:
        yield running


@pytest.fixture
def public_client(public_server: ApiServer, redis_url: str) -> Iterator[httpx2.Client]:
    """A client without a key."""
    with httpx2.Client(base_url=public_server.url, timeout=60) as opened:
        yield opened


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["Redis"]:
    with Redis.from_url(redis_url) as connection:
        yield connection
