"""Redis clients with passwords, TLS, sentinels and Valkey's URLs; each test runs a job."""

import asyncio
import contextlib
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
import trustme
from redis import Redis

from tests.support.ports import free_port
from tests.support.queue_steps import follow_events
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import async_wait_until, wait_until
from worker.errors import QueueUnavailable, RedisUnfit
from worker.job import TERMINAL, Job
from worker.queue.job_queue import JobQueue
from worker.redis_io.client import (
    connect,
    connect_async,
    disconnect,
    is_outage,
    unavailable_on_outage,
)
from worker.redis_io.sentinel import SentinelUrl, sentinel_url
from worker.redis_io.server import find_redis_server
from worker.settings import Settings
from worker.telemetry.background import stop_task


@contextmanager
def server(folder: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run another redis-server on loopback; it has an append-only file."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(find_redis_server()), *options, "--bind", "127.0.0.1", "--dir", str(folder)]
    command += [] if "--sentinel" in options else ["--appendonly", "yes"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def answers(port: int, **options: str) -> bool:
    with contextlib.suppress(redis.RedisError), Redis(port=port, **options) as client:  # type: ignore[arg-type]
        return bool(client.ping())
    return False


async def run_job(url: str, settings: Settings, run_worker: RunWorker) -> None:
    queue = JobQueue(url, settings)
    try:
        job = await queue.admit(make_request(steps=2))
        with run_worker(url=url):
            events = [event.event async for event in follow_events(queue, job.id)]
        assert events[-1] == "succeeded"
    finally:
        await queue.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_a_user_with_a_password(
    scheme: str, tmp_path: Path, settings: Settings, run_worker: RunWorker
) -> None:
    port = free_port()
    with server(tmp_path / "redis", "--port", str(port), "--requirepass", "p@ss/word"):
        wait_until(lambda: answers(port, password="p@ss/word"))
        url = f"{scheme}://:p%40ss%2Fword@127.0.0.1:{port}/3"
        await run_job(url, settings, run_worker)
        with Redis(port=port, password="p@ss/word", db=3) as client:
            assert client.dbsize() > 0
        with pytest.raises(redis.AuthenticationError), connect(f"{scheme}://127.0.0.1:{port}") as c:
            c.ping()


class TlsProxy:
    """Accepts TLS connections and forwards their plain bytes to a local port."""

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        self._context = context
        self._target = target
        self._server: asyncio.Server | None = None
        self._joined: dict[asyncio.Task[None] | None, list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writers in self._joined.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*filter(None, self._joined))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", self._target)
        self._joined[asyncio.current_task()] = [writer, inner[1]]
        await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_tls_with_a_checked_certificate(
    scheme: str, tmp_path: Path, settings: Settings, run_worker: RunWorker
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    port = free_port()
    with server(tmp_path / "redis", "--port", str(port)):
        wait_until(lambda: answers(port))
        ready = threading.Event()
        ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []

        async def serve() -> None:
            over = asyncio.Event()
            async with TlsProxy(context, port) as tls_port:
                ends.append((asyncio.get_running_loop(), over, tls_port))
                ready.set()
                await over.wait()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        assert ready.wait(60)
        loop, over, tls_port = ends[0]
        url = f"{scheme}://localhost:{tls_port}/0"
        await run_job(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}", settings, run_worker)
        with pytest.raises(redis.ConnectionError, match="certificate"), connect(url) as client:
            client.ping()
        loop.call_soon_threadsafe(over.set)
        thread.join(60)


async def test_jobs_continue_after_a_failover(
    settings: Settings, run_worker: RunWorker, tmp_path: Path
) -> None:
    master, replica, watch = free_port(), free_port(), free_port()
    with TemporaryDirectory(prefix="kirazuri-") as name, ExitStack() as stack:
        folder = Path(name)
        first = stack.enter_context(server(folder / "a", "--port", str(master)))
        wait_until(lambda: answers(master))
        follow = ("--port", str(replica), "--replicaof", "127.0.0.1", str(master))
        stack.enter_context(server(folder / "b", *follow))
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor pictures 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds pictures 500\n"
            "sentinel failover-timeout pictures 3000\n"
        )
        options = (str(folder / "sentinel.conf"), "--sentinel", "--port", str(watch))
        stack.enter_context(server(folder / "s", *options))
        wait_until(lambda: answers(watch))
        wait_until(lambda: answers(replica))
        with Redis(port=replica) as second:
            wait_until(lambda: second.info("replication").get("master_link_status") == "up")
        with Redis(port=watch, decode_responses=True) as sentinel:
            wait_until(lambda: sentinel.sentinel_slaves("pictures"))
        url = f"redis+sentinel://127.0.0.1:9,127.0.0.1:{watch}/pictures/0"
        queue = JobQueue(url, settings)
        with run_worker(url=url) as worker:
            before = await queue.wait((await queue.admit(make_request(steps=2))).id, 60)
            assert before.status == "succeeded"
            running = await queue.admit(make_request(f"until={tmp_path / 'go'}"))
            await async_wait_until(lambda: worker.slots)
            first.kill()
            (tmp_path / "go").touch()
            done = await wait_through_outage(queue, running.id)
            assert done.status == "succeeded"
            after = await queue.wait((await queue.admit(make_request(steps=2))).id, 60)
            assert after.status == "succeeded"
        await queue.close()


async def wait_through_outage(queue: JobQueue, job_id: str) -> Job:
    deadline = time.monotonic() + 120
    while True:
        try:
            job = await queue.wait(job_id, 5)
        except QueueUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        else:
            if job.status in TERMINAL or time.monotonic() > deadline:
                return job


def test_sentinel_urls_are_parsed() -> None:
    url = "rediss+sentinel://me:p%40ss@a:26379,[::1]:26380/pictures/2?sentinel_password=x"
    assert sentinel_url(url) == SentinelUrl(
        sentinels=(("a", 26379), ("::1", 26380)),
        service="pictures",
        options={
            "username": "me",
            "password": "p@ss",
            "ssl": True,
            "db": 2,
            "sentinel_password": "x",
        },
    )
    assert sentinel_url("redis://a:1/0") is None


def test_invalid_sentinel_urls_are_refused_without_their_password() -> None:
    for url, message in (
        ("redis+sentinel://a:1/", "ends in /SERVICE"),
        ("redis+sentinel://a:1/pictures/x", "ends in /SERVICE"),
        ("redis+sentinel://a/pictures", "HOST:PORT"),
        ("redis+sentinel://:secret@a:b/pictures", "HOST:PORT"),
    ):
        for make_client in (connect, connect_async):
            with pytest.raises(ValueError, match=message) as caught:
                make_client(url)
            assert "secret" not in str(caught.value)


async def test_a_database_that_is_missing_later_is_told_as_an_outage(
    redis_url: str,
) -> None:
    """A server that comes back with fewer databases; the service waits and says why."""
    client = connect_async(f"{redis_url}?db=9999")
    try:
        with pytest.raises(RedisUnfit, match="DB index is out of range"), unavailable_on_outage():
            await client.get("x")
    finally:
        await disconnect(client)
    with connect(f"{redis_url}?db=9999") as blocking, pytest.raises(redis.ResponseError) as raised:
        blocking.get("x")
    assert is_outage(raised.value)


def test_no_master_is_an_outage() -> None:
    with connect("redis+sentinel://127.0.0.1:9/pictures") as client:
        with pytest.raises(redis.ConnectionError) as caught:
            client.ping()
        assert is_outage(caught.value)


async def test_a_task_that_swallowed_a_cancel_is_cancelled_again() -> None:
    swallowed = 0

    async def swallow_the_first() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    task = asyncio.create_task(swallow_the_first())
    await asyncio.sleep(0)
    await stop_task(task)
    assert task.cancelled()
    assert swallowed == 1
    await stop_task(task)


async def test_a_cancel_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    redis_url = "redis://127.0.0.1:9"  # nobody is asked
    client, may_close = connect_async(redis_url), asyncio.Event()
    close = client.aclose
    closed = False

    async def close_slowly() -> None:
        nonlocal closed
        await may_close.wait()
        await close()
        closed = True

    monkeypatch.setattr(client, "aclose", close_slowly)
    task = asyncio.create_task(disconnect(client))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_close.set()
    await asyncio.wait({task})
    assert closed
    assert task.cancelled()
