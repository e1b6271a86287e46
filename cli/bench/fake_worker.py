"""A worker without an engine: takes jobs through the real scripts and ends them at a fixed rate.

`python -m cli.bench.fake_worker RATE`; a rate of 0 takes no jobs and only says that it is there.
"""

import hashlib
import struct
import sys
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from cli.bench.prompts import SIDE
from model.card import load_card
from worker.job import StoredImage, WorkerStatus, checkpoint_of
from worker.queue.worker_queue import Claim, WorkerQueue, read_claims
from worker.redis_io.client import connect
from worker.settings import Settings, redis_dsn
from worker.store.image_store import ImageStore
from worker.store.open_store import open_store

_NAME = "fake"
_BEAT_SECONDS = 2.0
_IDLE_SECONDS = 0.005


class FakeWorker:
    """Takes and ends one job at a time."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(redis_dsn(settings))
        self._card = settings.card
        self._checkpoint = checkpoint_of(load_card(settings.card))
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

    def take(self) -> Claim | None:
        """Take the next job, as the control loop of a worker does; None if none waits."""
        pipeline = self._client.pipeline(transaction=False)
        checkpoints, tokens = [self._checkpoint], [uuid4().hex]
        self._queue.claim(pipeline, tokens, worker=_NAME, checkpoints=checkpoints, running={})
        claims = read_claims(pipeline.execute()[-1])
        return claims[0] if claims and isinstance(claims[0], Claim) else None

    def end(self, claim: Claim, number: int) -> None:
        """Store a picture and end the job with it."""
        images = [_store(self._store, number)]
        self._queue.commit(claim.job_id, claim.token, "succeeded", images=images)

    def run(self, rate: float, *, is_over: Callable[[], bool] = lambda: False) -> None:
        """End `rate` jobs a second; waits for jobs if there are none."""
        number, due, beaten = 0, time.monotonic(), 0.0
        while not is_over():
            now = time.monotonic()
            if now - beaten > _BEAT_SECONDS:
                self.beat()
                beaten = now
            if now < due or not rate or (claim := self.take()) is None:
                time.sleep(_IDLE_SECONDS)
                continue
            self.end(claim, number)
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
    FakeWorker(Settings()).run(float(sys.argv[1]))
