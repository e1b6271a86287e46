"""A worker that a test drives step by step."""

import hashlib
import time
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis

from tests.support.queue_steps import bring_to_front, forget_token, maintain
from worker.job import JobError, StoredImage, WorkerStatus
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.worker_queue import Claim, FinalStatus, Report, WorkerQueue, read_claims
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


class ManualWorker:
    """Makes one transition of a job at a time, through the same `WorkerQueue` as real workers."""

    def __init__(self, connection: "Redis", settings: Settings) -> None:
        self.redis = connection
        self._queue = WorkerQueue(connection, settings)
        self._store = LocalImageStore(settings.data_dir / "images")

    def queued_ids(self) -> list[str]:
        """The ids of queued jobs, oldest first."""
        ids = cast(list[bytes], self.redis.zrange(redis_keys.QUEUED, 0, -1))
        return [str(job_id, "utf-8") for job_id in ids]

    def claim(self, job_id: str) -> Claim:
        """Claim the job, whatever is before it in the queue."""
        known: Any = self.redis.hmget(redis_keys.job_key(job_id), "card", "checkpoint")
        card, checkpoint = (str(value or b"", "utf-8") for value in known)
        forget_token(self.redis, "token")
        bring_to_front(self.redis, job_id)
        with self.redis.pipeline() as pipeline:
            self._queue.claim(
                pipeline,
                ["token"],
                worker="manual-worker",
                checkpoints=[(card, checkpoint)],
                running={},
            )
            reply = pipeline.execute()[-1]
        (claim,) = read_claims(reply)
        assert isinstance(claim, Claim), claim
        assert claim.job_id == job_id
        self.redis.zadd(rq_layout.leases_key(), {f"{job_id}:token": time.time() + 60})
        return claim

    def report(self, job_id: str, event: str, data: dict[str, Any], **fields: Any) -> str:
        """Report an event; returns ok, cancel or lost."""
        with self.redis.pipeline() as pipeline:
            news = Report(event=event, data=data, fields=fields)
            self._queue.report(pipeline, [(job_id, "token", news)])
            return str(pipeline.execute()[-1][0], "utf-8")

    def step(self, job_id: str, step: int, steps: int) -> str:
        return self.report(job_id, "progress", {"step": step, "steps": steps}, step=step)

    def finish(self, job_id: str, *pictures: bytes) -> list[StoredImage]:
        """Store the pictures and complete the job with them."""
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
        status: FinalStatus,
        *,
        images: list[StoredImage] | None = None,
        error: JobError | None = None,
    ) -> None:
        timings = {"encode": 0.1, "denoise": 0.2}
        self._queue.commit(
            job_id, "token", status, images=images or [], error=error, timings=timings
        )

    def end_overdue(self) -> list[str]:
        """End all jobs past their deadline, as the maintenance of real workers does."""
        return list(maintain(self._queue).overdue)

    def newest_id(self) -> str:
        """The id of the newest job."""
        keys = [str(key, "utf-8") for key in self.redis.scan_iter(redis_keys.job_key("*"))]
        return max(keys).rsplit(":", 1)[-1]

    def heartbeat(self, **changes: Any) -> None:
        """Report the state of this worker."""
        status = WorkerStatus(
            name="manual-worker",
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
            self._queue.heartbeat(pipeline, status.model_copy(update=changes))
            pipeline.execute()
