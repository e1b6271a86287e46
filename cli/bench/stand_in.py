"""A worker without an engine: takes jobs through the real scripts and ends them at a fixed rate.

`python -m cli.bench.stand_in RATE`; a rate of 0 takes no jobs and only says that it is there.
"""

import hashlib
import struct
import sys
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

from cli.bench.prompts import SIDE
from worker.job import StoredImage, WorkerStatus
from worker.queue.layout import rq_layout
from worker.queue.worker_queue import Claim, WorkerQueue, read_claim
from worker.redis_io.client import connect
from worker.settings import Settings, redis_dsn
from worker.store.image_store import ImageStore
from worker.store.open_store import open_store

_NAME = "stand-in"
_TOKEN = "stand-in"  # noqa: S105 - marks who holds a job
_LEASE_SECONDS = 3600.0
_BEAT_SECONDS = 2.0
_IDLE_SECONDS = 0.005


class StandIn:
    """Takes and ends one job at a time."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(redis_dsn(settings))
        self._card = settings.card
        self._queue = WorkerQueue(self._client, settings)
        self._store = open_store(settings)

    def beat(self) -> None:
        """Tell the service that a worker is there."""
        status = WorkerStatus(
            name=_NAME,
            is_warm=True,
            seen_at=datetime.now(UTC),
            card=self._card,
            device="none",
            precision="float32",
            running=0,
            forwards=0,
            evaluations=0,
        )
        pipeline = self._client.pipeline(transaction=False)
        self._queue.heartbeat(pipeline, status)
        pipeline.execute()

    def take(self) -> str | None:
        """Take the next job, as the control loop of a worker does; None if none waits."""
        picked = self._queue.pick()
        if picked is None:
            return None
        _, job_id = picked
        pipeline = self._client.pipeline()
        lease = rq_layout.lease_member(job_id, _TOKEN)
        pipeline.zadd(rq_layout.leases_key(), {lease: time.time() + _LEASE_SECONDS})
        self._queue.claim(pipeline, job_id, _TOKEN, worker=_NAME, is_alone=True)
        claim = read_claim(pipeline.execute()[-1])
        return job_id if isinstance(claim, Claim) else None

    def end(self, job_id: str, number: int) -> None:
        """Store a picture and end the job with it."""
        self._queue.commit(job_id, _TOKEN, "succeeded", images=[_store(self._store, number)])
        self._client.zrem(rq_layout.leases_key(), rq_layout.lease_member(job_id, _TOKEN))

    def run(self, rate: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """End `rate` jobs a second; waits for jobs if there are none."""
        number, due, beaten = 0, time.monotonic(), 0.0
        while not is_over():
            now = time.monotonic()
            if now - beaten > _BEAT_SECONDS:
                self.beat()
                beaten = now
            if now < due or not rate or (job_id := self.take()) is None:
                time.sleep(_IDLE_SECONDS)
                continue
            self.end(job_id, number)
            number += 1
            due = max(due, now - 1) + 1 / rate  # makes up for at most one second


def _store(store: ImageStore, number: int) -> StoredImage:
    data = picture(number)
    return StoredImage(
        url=f"/images/{store.put(data, 'png')}",
        seed=number,
        width=SIDE,
        height=SIDE,
        format="png",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def picture(number: int) -> bytes:
    """A PNG file of one colour; each number has its own up to 2^24."""
    row = b"\0" + number.to_bytes(3, "big") * SIDE
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * SIDE)),
        (b"IEND", b""),
    )
    body = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


if __name__ == "__main__":
    StandIn(Settings()).run(float(sys.argv[1]))
