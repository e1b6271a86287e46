"""The service behind a real uvicorn and a real Redis; a hand that plays the worker's part."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self, cast

import httpx2
import pytest
import uvicorn
from redis import Redis

from api.main import create_app
from api.server import server_config
from worker.job import JobError, StoredImage, WorkerStatus
from worker.queue import record
from worker.queue.record import QUEUED, RQ_QUEUE
from worker.queue.worker_queue import Claim, Outcome, Report, WorkerQueue, read_claim
from worker.redis_io.client import connect
from worker.redis_io.server import RedisServer
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


def free_socket() -> socket.socket:
    """A listening socket on a free loopback port."""
    # With the protocol named asyncio turns Nagle's algorithm off, which else costs 40 ms an answer.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


class Running:
    """uvicorn in a thread of its own, as a user runs it."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self._socket = free_socket()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = server_config(self.app, settings, host="127.0.0.1", port=0, stop_seconds=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Hand:
    """Carries out jobs as a worker would, one transition at a time, through the worker's ledger."""

    def __init__(self, connection: "Redis", settings: Settings) -> None:
        self.redis = connection
        self._ledger = WorkerQueue(connection, settings)
        self._store = LocalImageStore(settings.data_dir / "images")

    def waiting(self) -> list[str]:
        """The ids of queued jobs, oldest first."""
        ids = cast(list[bytes], self.redis.zrange(QUEUED, 0, -1))
        return [str(job_id, "utf-8") for job_id in ids]

    def claim(self, job_id: str) -> Claim:
        """Take the job, with a lease such as RQ gives."""
        lease = {f"{job_id}:token": time.time() + 60}
        self.redis.zadd(f"rq:wip:{RQ_QUEUE}", lease)
        with self.redis.pipeline() as pipeline:
            self._ledger.claim(pipeline, job_id, "token", worker="hand", is_alone=True)
            claim = read_claim(pipeline.execute()[-1])
        assert isinstance(claim, Claim), claim
        return claim

    def report(self, job_id: str, event: str, data: dict[str, Any], **fields: Any) -> str:
        """Tell news; the answer is ok, cancel or lost."""
        with self.redis.pipeline() as pipeline:
            self._ledger.report(
                pipeline, job_id, "token", Report(event=event, data=data, fields=fields)
            )
            return str(pipeline.execute()[-1], "utf-8")

    def step(self, job_id: str, step: int, steps: int) -> str:
        return self.report(job_id, "progress", {"step": step, "steps": steps}, step=step)

    def finish(self, job_id: str, *pictures: bytes) -> list[StoredImage]:
        """Store the pictures and end the job with them."""
        images = [self._stored(data, seed) for seed, data in enumerate(pictures)]
        self.end(job_id, "succeeded", images=images)
        return images

    def _stored(self, data: bytes, seed: int) -> StoredImage:
        return StoredImage(
            url=f"/images/{self._store.put(data, 'png')}",
            seed=seed,
            width=128,
            height=128,
            format="png",
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def end(
        self,
        job_id: str,
        status: Outcome,
        *,
        images: list[StoredImage] | None = None,
        error: JobError | None = None,
    ) -> None:
        timings = {"encode": 0.1, "denoise": 0.2}
        self._ledger.commit(
            job_id, "token", status, images=images or [], error=error, timings=timings
        )

    def end_overdue(self) -> list[str]:
        """What every worker's maintenance does about deadlines."""
        return self._ledger.end_overdue()

    def newest(self) -> str:
        """The id of the job that was made last."""
        keys = [str(key, "utf-8") for key in self.redis.scan_iter(record.job_key("*"))]
        return max(keys).rsplit(":", 1)[-1]

    def beat(self, **changes: Any) -> None:
        """A sign of life."""
        status = WorkerStatus(
            name="hand",
            is_warm=True,
            seen_at=datetime.now(UTC),
            card="kirazuri-tiny",
            device="cpu",
            precision="float32",
            running=1,
            forwards=10,
            evaluations=25,
        )
        with self.redis.pipeline() as pipeline:
            self._ledger.heartbeat(pipeline, status.model_copy(update=changes))
            pipeline.execute()


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
