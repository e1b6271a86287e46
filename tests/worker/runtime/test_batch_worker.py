"""The control loop around a fake engine, with the real Redis, in this process."""

import asyncio
import base64
import io
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from redis import Redis
from rq.suspension import resume, suspend

from model.recipes.recipe import Recipe
from model.resolved_request import ResolvedRequest
from tests.support.fake_engine import FakeEngine, pixels
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.waiting import wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys, rq_layout
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings
from worker.store.image_store import LocalImageStore

RQ_LIST = rq_layout.list_key()


async def events_of(queue: JobQueue, job: Job) -> list[str]:
    return [event.event async for event in queue.events(job.id)]


async def until(queue: JobQueue, job: Job, condition: Callable[[Job], bool]) -> None:
    """Follow the job's events until it looks so."""
    async for _ in queue.events(job.id):
        if condition(await queue.get(job.id)):
            return
    raise AssertionError("the job ended before")


async def test_previews_are_small_pictures_among_the_events(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    job = await queue.admit(make_request(steps=3, width=256, height=192, previews=True))
    with run_worker():
        events = [event async for event in queue.events(job.id)]
    shown = [event.data for event in events if event.event == "preview"]
    assert [data["step"] for data in shown] == [1, 2, 3]
    assert [data["index"] for data in shown] == [0, 0, 0]
    head, _, encoded = shown[0]["image"].partition(",")
    assert head == "data:image/webp;base64"
    assert len(encoded) < 10_000
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert (image.format, image.size) == ("WEBP", (32, 24))


async def test_many_jobs_share_the_engine(
    queue: JobQueue, settings: Settings, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    formats = ("png", "webp", "jpeg", "avif")
    requests = [
        make_request(
            seed=10 * n, steps=4 + n % 3, num_images=1 + n % 2, image_format=formats[n % 4]
        )
        for n in range(20)
    ]
    jobs = [await queue.admit(request) for request in requests]
    with run_worker(step_seconds=0.05):
        done = await asyncio.gather(*(queue.wait(job.id, 20) for job in jobs))
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
        assert job.recipe == worker.recipe
        assert job.timings.denoise is not None
        assert job.timings.store is not None
    with Image.open(io.BytesIO(store.path(done[0].images[0].name).read_bytes())) as image:
        assert (image.convert("RGB").tobytes()) == pixels(requests[0], 0).tobytes()
        assert "Seed: 0," in image.info["parameters"]
    left = set(redis_client.keys("rq:*"))
    assert left <= {b"rq:queues", b"rq:worker:" + worker.name.encode()}
    assert redis_client.zcard(redis_keys.IMAGES) == sum(r.num_images for r in requests)


async def test_a_job_tells_its_whole_story(queue: JobQueue, run_worker: RunWorker) -> None:
    job = await queue.admit(make_request("long prompt", steps=10))
    with run_worker(step_seconds=0.15):
        told = [event async for event in queue.events(job.id)]
    progress = [event.data for event in told if event.event == "progress"]
    assert [event.event for event in told if event.event != "progress"] == [
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
    assert told[-1].data["images"] == [image.model_dump(mode="json") for image in done.images]


async def test_every_step_is_told_however_fast(queue: JobQueue, run_worker: RunWorker) -> None:
    job = await queue.admit(make_request(steps=100))
    with run_worker(step_seconds=0.005):
        told = [event async for event in queue.events(job.id)]
    steps = [event.data["step"] for event in told if event.event == "progress"]
    assert steps == list(range(1, 101))


async def test_cancel_stops_a_running_job_within_a_step_or_two(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    cancelled: list[str] = []

    class Watched(FakeEngine):
        def cancel(self, job_id: str) -> None:
            cancelled.append(job_id)
            super().cancel(job_id)

    job = await queue.admit(make_request(steps=100))
    other = await queue.admit(make_request(steps=12))
    with run_worker(kind=Watched, step_seconds=0.1):
        await until(queue, job, lambda now: now.progress.step >= 3)
        assert (await queue.cancel(job.id)).status == "running"
        began = time.monotonic()
        done = await queue.wait(job.id, 5)
        assert done.status == "cancelled"
        assert time.monotonic() - began < 0.5
        wait_until(lambda: cancelled == [job.id])
        assert (await queue.wait(other.id, 10)).status == "succeeded"
    assert done.progress.step < 10
    assert (await events_of(queue, job))[-1] == "cancelled"


async def test_a_bad_request_fails_alone(queue: JobQueue, run_worker: RunWorker) -> None:
    good, bad, flaky = [await queue.admit(make_request(p)) for p in ("1girl", "nan", "flaky")]
    with run_worker():
        done = [await queue.wait(job.id, 20) for job in (good, bad, flaky)]
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


async def test_the_last_attempt_runs_alone(queue: JobQueue, run_worker: RunWorker) -> None:
    flaky = await queue.admit(make_request("flaky", steps=10))
    neighbours = [await queue.admit(make_request(seed=s, steps=40)) for s in range(4)]
    alone = []

    class Watched(FakeEngine):
        def _misbehave(self, job_id: str, request: ResolvedRequest) -> Any:
            if "flaky" in request.prompt:
                alone.append(len(self._running) == 1)
            return super()._misbehave(job_id, request)

    with run_worker(kind=Watched, step_seconds=0.03):
        assert (await queue.wait(flaky.id, 20)).status == "failed"
        done = [await queue.wait(job.id, 20) for job in neighbours]
    assert alone[1:] == [False, True]
    assert {job.status for job in done} == {"succeeded"}


async def test_stopping_lets_running_jobs_finish(queue: JobQueue, run_worker: RunWorker) -> None:
    job = await queue.admit(make_request(steps=10))
    with run_worker(step_seconds=0.05):
        await until(queue, job, lambda now: now.status == "running")
    done = await queue.get(job.id)
    assert (done.status, done.attempts) == ("succeeded", 1)
    assert await queue.state.workers() == []


async def test_a_second_stop_hands_back_in_order_without_using_a_try(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    jobs = [await queue.admit(make_request(seed=seed, steps=1000)) for seed in range(3)]
    with run_worker(is_drained=False, step_seconds=0.05):
        await until(queue, jobs[-1], lambda now: now.status == "running")
    ids = [job.id.encode() for job in jobs]
    assert redis_client.lrange(RQ_LIST, 0, -1) == ids
    handed = [await queue.get(job.id) for job in jobs]
    assert [(job.status, job.attempts) for job in handed] == [("queued", 0)] * 3
    assert redis_client.keys("rq:*execution*") == []


async def test_a_clock_that_is_off_takes_no_jobs(
    queue: JobQueue,
    run_worker: RunWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    skew = 30.0
    monkeypatch.setattr("worker.queue.worker_queue.WorkerQueue.clock_skew", lambda self: skew)
    job = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(job.id, 1)).status == "queued"
        assert not any(worker.is_warm for worker in await queue.state.workers())
        assert "clock_skew" in caplog.text
        skew = 0.0
        assert (await queue.wait(job.id, 10)).status == "succeeded"


async def test_rq_suspend_is_heeded(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    suspend(redis_client)
    job = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(job.id, 1)).status == "queued"
        resume(redis_client)
        assert (await queue.wait(job.id, 10)).status == "succeeded"


async def test_what_a_stranger_puts_into_the_queue_runs_no_code(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    redis_client.hset("rq:job:evil", mapping={"data": b"\x80\x04junk", "origin": rq_layout.QUEUE})
    redis_client.rpush(RQ_LIST, "evil", "missing")
    job = await queue.admit(make_request())
    with run_worker():
        assert (await queue.wait(job.id, 10)).status == "succeeded"
    assert not redis_client.exists("rq:job:evil", "rq:job:missing")
    assert redis_client.llen(RQ_LIST) == 0


async def test_a_record_of_another_version_fails_alone(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    odd, good = [await queue.admit(make_request(seed=seed)) for seed in (1, 2)]
    readable = redis_client.hget(redis_keys.job_key(odd.id), "request")
    redis_client.hset(redis_keys.job_key(odd.id), "request", '{"prompt": 1}')
    with run_worker():
        assert (await queue.wait(good.id, 10)).status == "succeeded"
    redis_client.hset(redis_keys.job_key(odd.id), "request", readable or b"")
    done = await queue.get(odd.id)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "unreadable"


async def test_a_job_stuck_between_queue_and_worker_is_found(
    queue: JobQueue, run_worker: RunWorker, redis_client: "Redis"
) -> None:
    job = await queue.admit(make_request())
    redis_client.lmove(RQ_LIST, f"{RQ_LIST}:intermediate")
    with run_worker():
        assert (await queue.wait(job.id, 15)).status == "succeeded"
    assert not redis_client.exists(f"{RQ_LIST}:intermediate:first_seen:{job.id}")


async def test_pictures_go_when_their_time_is_over(
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


async def test_one_line_per_transition(
    queue: JobQueue, run_worker: RunWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = await queue.admit(make_request("a secret prompt"))
    with run_worker():
        await queue.wait(job.id, 10)
    lines = [r.getMessage() for r in caplog.records if job.id in r.getMessage()]
    assert [line.split()[1] for line in lines] == ["event=started", "event=succeeded"]
    assert " batch=1.0" in lines[1]
    assert "secret" not in caplog.text


async def test_an_engine_that_cannot_warm_up_ends_the_process(
    redis_url: str, settings: Settings, redis_client: "Redis"
) -> None:
    class Died(Exception):
        pass

    def die(code: int) -> None:
        raise Died(code)

    worker = BatchWorker(
        redis_client,
        settings,
        engine_factory=FakeEngine,
        store=LocalImageStore(settings.data_dir / "images"),
        version="test",
        warm_up=make_request("nan"),
        die=die,
    )
    with pytest.raises(Died, match="70"):
        worker.work()
    assert redis_client.keys("rq:wip*") == []
