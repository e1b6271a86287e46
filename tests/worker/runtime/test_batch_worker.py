"""The control loop in a thread, with a fake engine and the real Redis."""

import asyncio
import base64
import io
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from redis import Redis
from rq.suspension import resume, suspend

from model.engine.protocol import EngineEvent, Failed
from model.recipes.recipe import Recipe
from model.resolved_request import ResolvedRequest
from tests.support.fake_engine import FakeEngine, pixels
from tests.support.queue_steps import LEASES, follow_events, take
from tests.support.requests import make_request
from tests.support.run_worker import Died, RunWorker, await_heartbeats, die
from tests.support.waiting import async_wait_until, wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.queue.worker_queue import WorkerQueue
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings
from worker.store.image_store import LocalImageStore

RQ_LIST = rq_layout.list_key()


async def events_of(queue: JobQueue, job: Job) -> list[str]:
    return [event.event async for event in follow_events(queue, job.id)]


async def until_running(queue: JobQueue, job: Job) -> None:
    async for event in follow_events(queue, job.id):
        if event.event == "started":
            return
    raise AssertionError("the job never started")


async def test_previews_are_small_images_among_the_events(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    job = await queue.admit(make_request(steps=3, width=256, height=192, previews=True))
    with run_worker():
        events = [event async for event in follow_events(queue, job.id)]
    shown = [event.data for event in events if event.event == "preview"]
    assert [data["step"] for data in shown] == [1, 2, 3]
    assert [data["index"] for data in shown] == [0, 0, 0]
    head, _, encoded = shown[0]["image"].partition(",")
    assert head == "data:image/webp;base64"
    assert len(encoded) < 10_000
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert (image.format, image.size) == ("WEBP", (32, 24))


async def test_many_jobs_share_the_engine(
    queue: JobQueue, settings: Settings, run_worker: RunWorker, redis_client: "Redis",
    tmp_path: Path,
) -> None:  # fmt: skip
    go = tmp_path / "go"
    formats = ("png", "webp", "jpeg", "avif")
    requests = [
        make_request(
            f"until={go} compiled" if n % 5 else f"until={go}",
            seed=10 * n,
            steps=4 + n % 3,
            num_images=1 + n % 2,
            image_format=formats[n % 4],
        )
        for n in range(20)
    ]
    jobs = [await queue.admit(request) for request in requests]
    with run_worker() as running:
        await async_wait_until(lambda: len(running.slots) == settings.max_running)
        go.touch()
        done = await asyncio.gather(*(queue.wait(job.id, 60) for job in jobs))
        await await_heartbeats(queue)
        (worker,) = await queue.state.workers()
    assert [job.status for job in done] == ["succeeded"] * 20
    assert worker.is_warm
    assert worker.recipe == Recipe(
        card="fake", checkpoint="0" * 64, precision="float32", service="test 1.0"
    )
    assert worker.evaluations > 2 * worker.forwards
    store = LocalImageStore(settings.data_dir / "images")
    for job, request in zip(done, requests, strict=True):
        assert [image.seed for image in job.images] == [
            request.seed + index for index in range(request.num_images)
        ]
        assert store.path(job.images[0].name).stat().st_size == job.images[0].bytes
        path = "compiled" if "compiled" in request.prompt else "eager"
        assert job.recipe == worker.recipe.model_copy(update={"path": path})
        with Image.open(store.path(job.images[0].name)) as picture:
            if picture.format == "PNG":
                assert json.loads(picture.info["kirazuri"])["recipe"]["path"] == path
        assert job.timings.denoise is not None
        assert job.timings.store is not None
    with Image.open(io.BytesIO(store.path(done[0].images[0].name).read_bytes())) as image:
        assert (image.convert("RGB").tobytes()) == pixels(requests[0], 0).tobytes()
        assert "Seed: 0," in image.info["parameters"]
    left = set(redis_client.keys("rq:*"))
    assert left <= {b"rq:queues", b"rq:worker:" + worker.name.encode()}
    assert redis_client.zcard(redis_keys.IMAGES) == sum(r.num_images for r in requests)


async def test_the_events_of_a_job_are_complete(queue: JobQueue, run_worker: RunWorker) -> None:
    job = await queue.admit(make_request("long prompt", steps=10))
    with run_worker(step_seconds=0.1):
        events = [event async for event in follow_events(queue, job.id)]
    progress = [event.data for event in events if event.event == "progress"]
    assert [event.event for event in events if event.event != "progress"] == [
        "queued",
        "started",
        "image",
        "succeeded",
    ]
    steps = [data["step"] for data in progress]
    assert steps == list(range(1, 11))
    assert progress[1]["eta_seconds"] > progress[-2]["eta_seconds"] > 0
    assert progress[-1]["eta_seconds"] == 0
    done = await queue.get(job.id)
    assert [warning.code for warning in done.warnings] == ["prompt_cut"]
    assert events[-1].data["images"] == [image.model_dump(mode="json") for image in done.images]


async def test_fast_steps_are_all_reported(queue: JobQueue, run_worker: RunWorker) -> None:
    job = await queue.admit(make_request(steps=100))
    with run_worker(step_seconds=0.005):
        events = [event async for event in follow_events(queue, job.id)]
    steps = [event.data["step"] for event in events if event.event == "progress"]
    assert steps == list(range(1, 101))


async def test_a_running_job_is_cancelled_before_its_step_ends(
    queue: JobQueue, run_worker: RunWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    cancelled: list[str] = []

    class NotesCancels(FakeEngine):
        def cancel(self, job_id: str) -> None:
            cancelled.append(job_id)
            super().cancel(job_id)

    job = await queue.admit(make_request(f"until={go}"))
    other = await queue.admit(make_request(f"until={go}"))
    with run_worker(kind=NotesCancels) as worker:
        await async_wait_until(lambda: len(worker.slots) == 2)
        assert (await queue.cancel(job.id)).status == "running"
        assert (await queue.wait(job.id, 60)).status == "cancelled"
        assert cancelled == [], "the engine is still in its step"
        go.touch()
        assert (await queue.wait(other.id, 60)).status == "succeeded"
    assert cancelled == [job.id]
    assert (await events_of(queue, job))[-1] == "cancelled"


async def test_a_bad_request_fails_alone(queue: JobQueue, run_worker: RunWorker) -> None:
    good, bad, flaky = [await queue.admit(make_request(p)) for p in ("1girl", "nan", "flaky")]
    with run_worker():
        done = [await queue.wait(job.id, 60) for job in (good, bad, flaky)]
    assert [(job.status, job.attempts) for job in done] == [
        ("succeeded", 1),
        ("failed", 1),
        ("failed", 3),
    ]
    assert done[1].error is not None
    assert (done[1].error.code, done[1].error.status) == ("non_finite", 500)
    assert done[2].error is not None
    assert done[2].error.code == "engine_error"
    assert (await events_of(queue, flaky)).count("retrying") == 2


async def test_the_last_attempt_at_a_job_of_a_lost_worker_runs_alone(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    flaky = await queue.admit(make_request("flaky"))
    redis_client.hset(redis_keys.job_key(flaky.id), "lost", 1)
    neighbours = [await queue.admit(make_request(seed=s)) for s in range(4)]
    alone: list[bool] = []

    class KeepsNeighbours(FakeEngine):
        """Keeps the neighbours until the flaky job's second attempt."""

        def _advance(self, job_id: str) -> list[EngineEvent]:
            is_kept = job_id != flaky.id and len(alone) < 2
            return [] if is_kept else super()._advance(job_id)

        def _misbehave(self, job_id: str, request: ResolvedRequest) -> Failed | None:
            if job_id == flaky.id:
                alone.append(len(self._running) == 1)
            return super()._misbehave(job_id, request)

    with run_worker(kind=KeepsNeighbours):
        assert (await queue.wait(flaky.id, 60)).status == "failed"
        done = [await queue.wait(job.id, 60) for job in neighbours]
    assert alone[1:] == [False, True]
    assert {job.status for job in done} == {"succeeded"}


async def test_stopping_lets_running_jobs_finish(
    queue: JobQueue, run_worker: RunWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    job = await queue.admit(make_request(f"until={go}"))
    with run_worker() as worker:
        await until_running(queue, job)
        worker.stop()
        go.touch()
        # The fixture stops the worker again, which hands back whatever still runs.
        assert [event async for event in follow_events(queue, job.id)]
    done = await queue.get(job.id)
    assert (done.status, done.attempts) == ("succeeded", 1)
    assert await queue.state.workers() == []


async def test_a_second_stop_hands_back_in_order_and_uses_no_attempt(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    jobs = [await queue.admit(make_request(seed=seed, steps=1000)) for seed in range(3)]
    with run_worker(is_drained=False, step_seconds=0.05):
        await until_running(queue, jobs[-1])
    ids = [job.id.encode() for job in jobs]
    assert redis_client.lrange(RQ_LIST, 0, -1) == ids
    handed = [await queue.get(job.id) for job in jobs]
    assert [(job.status, job.attempts) for job in handed] == [("queued", 0)] * 3
    assert redis_client.keys("rq:*execution*") == []


async def test_a_worker_with_a_wrong_clock_takes_no_jobs(
    queue: JobQueue,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    skew = 30.0
    monkeypatch.setattr("worker.runtime.heartbeat.clock_skew", lambda *_: skew)
    job = await queue.admit(make_request())
    with run_worker() as worker:
        await async_wait_until(lambda: worker.engine.is_warm)
        await await_heartbeats(queue)
        assert (await queue.get(job.id)).status == "queued"
        assert not any(status.is_warm for status in await queue.state.workers())
        assert "clock_skew" in caplog.text
        skew = 0.0
        assert (await queue.wait(job.id, 60)).status == "succeeded"


async def test_a_worker_that_becomes_warm_says_so_at_once(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    go = threading.Event()

    class LoadsSlowly(FakeEngine):
        def __init__(self, **options: Any) -> None:
            assert go.wait(60)
            super().__init__(**options)

    rare = {"heartbeat_seconds": 1000.0, "lease_seconds": 3000}
    with run_worker(kind=LoadsSlowly, changes=rare) as worker:
        await async_wait_until(lambda: worker._heartbeat.may_claim)
        assert [status.is_warm for status in await queue.state.workers()] == [False]
        go.set()

        async def is_warm() -> bool:
            return [status.is_warm for status in await queue.state.workers()] == [True]

        await async_wait_until(is_warm)


async def test_rq_suspend_stops_the_claims(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    suspend(redis_client)
    job = await queue.admit(make_request())
    with run_worker() as worker:
        await async_wait_until(lambda: worker.engine.is_warm)
        await await_heartbeats(queue)
        assert (await queue.get(job.id)).status == "queued"
        resume(redis_client)
        assert (await queue.wait(job.id, 60)).status == "succeeded"


async def test_foreign_entries_in_the_queue_run_no_code(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    redis_client.hset("rq:job:evil", mapping={"data": b"\x80\x04junk", "origin": rq_layout.QUEUE})
    redis_client.rpush(RQ_LIST, "evil", "missing")
    job = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert not redis_client.exists("rq:job:evil", "rq:job:missing")
    assert redis_client.llen(RQ_LIST) == 0


async def test_an_unreadable_record_fails_alone(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    odd, good = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    readable = redis_client.hget(redis_keys.job_key(odd.id), "request")
    redis_client.hset(redis_keys.job_key(odd.id), "request", '{"prompt": 1}')
    with run_worker():
        assert (await queue.wait(good.id, 60)).status == "succeeded"
    redis_client.hset(redis_keys.job_key(odd.id), "request", readable or b"")
    done = await queue.get(odd.id)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "unreadable"


async def test_a_job_stuck_in_the_intermediate_queue_is_found(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis", worker_queue: WorkerQueue
) -> None:
    job = await queue.admit(make_request())
    take(worker_queue, job.id, "t", lease=-1)
    redis_client.hset(redis_keys.job_key(job.id), "status", "queued")
    redis_client.delete(LEASES)
    redis_client.rpush(f"{RQ_LIST}:intermediate", job.id)
    with run_worker(changes={"lease_seconds": 1}):
        assert (await queue.wait(job.id, 60)).status == "succeeded"
    assert not redis_client.exists(f"{RQ_LIST}:intermediate:first_seen:{job.id}")


async def test_expired_images_are_deleted(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    redis_client: "Redis",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.runtime.sweeper._FRESH_SECONDS", 0)
    store = LocalImageStore(settings.data_dir / "images")
    old, kept = store.put(b"old", "png"), store.put(b"kept", "png")
    redis_client.zadd(redis_keys.IMAGES, {old: time.time() - 1, kept: time.time() + 60})
    with run_worker():
        wait_until(lambda: redis_client.zcard(redis_keys.IMAGES) == 1)
    assert [name for name, _ in store.list_images()] == [kept]


async def test_each_transition_logs_one_line(
    queue: JobQueue, run_worker: RunWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = await queue.admit(make_request("a secret prompt"))
    with run_worker():
        await queue.wait(job.id, 60)
    lines = [r.getMessage() for r in caplog.records if job.id in r.getMessage()]
    assert [line.split()[1] for line in lines] == ["event=started", "event=succeeded"]
    assert " batch=1.0" in lines[1]
    assert "secret" not in caplog.text


async def test_an_engine_that_cannot_warm_up_ends_the_process(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    worker = BatchWorker(
        redis_client,
        settings,
        engine_factory=FakeEngine,
        store=LocalImageStore(settings.data_dir / "images"),
        version="test",
        warm_up=[make_request("nan")],
        die=die,
    )
    with pytest.raises(Died, match="70"):
        worker.work()
    assert redis_client.keys("rq:wip*") == []
