"""Tests that a worker reads the images that a job starts from before the engine gets the job."""

import io

import numpy
import pytest
from PIL import Image

from model.errors import InputMissing
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from tests.support.s3_server import FaultyProxy, S3Server
from tests.support.waiting import wait_until
from worker.images.input_images import HeldImages
from worker.queue.job_queue import JobQueue
from worker.runtime.publisher import Publisher
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import LocalImageStore
from worker.store.s3 import S3ImageStore

PHOTO = "a" * 40 + ".png"


def white(kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (24, 16), "white").save(buffer, kind, lossless=True)
    return buffer.getvalue()


def has_input(inputs: HeldImages, name: str) -> bool:
    try:
        return bool(inputs.read(name).size)
    except InputMissing:
        return False


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")])
def test_images_are_read_as_eight_bit_rgb(settings: Settings, kind: str, mode: str) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    name = store.put(white(kind, mode), kind.lower())
    publisher, inputs = Publisher(store), HeldImages()
    inputs.hold("token", publisher.fetch("token", [name]).result(60))
    pixels = inputs.read(name)
    assert pixels.shape == (16, 24, 3)
    assert pixels.dtype == numpy.uint8
    assert (pixels == 255).all()
    publisher.stop()


def test_unreadable_images_are_missing(settings: Settings) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    publisher = Publisher(store)
    expired, broken = store.put(b"x", "png"), store.put(b"no image", "png")
    store.delete(expired)
    for name in (PHOTO, expired, broken, "../secret"):
        with pytest.raises(InputMissing):
            publisher.fetch("token", [name]).result(60)
    publisher.stop()


async def test_the_engine_gets_a_job_with_its_images(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    store = LocalImageStore(settings.data_dir / "images")
    name = store.put(white(), "png")
    job = await queue.admit(make_request(init_image=name, strength=0.5, width=24, height=16))
    gone = await queue.admit(make_request(init_image=PHOTO, strength=0.5))
    with run_worker() as worker:
        assert (await queue.wait(job.id, 60)).status == "succeeded"
        failed = await queue.wait(gone.id, 60)
        wait_until(lambda: not has_input(worker.inputs, name))
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error is not None
    assert (failed.error.code, failed.error.status) == ("input_missing", 422)
    assert PHOTO in failed.error.detail


async def test_an_unavailable_store_costs_no_attempt_and_delays_no_other_job(
    queue: JobQueue, run_worker: RunWorker, s3_proxy: FaultyProxy, s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name = S3ImageStore(s3_server.bucket("inputs")).put(white(), "png")
    monkeypatch.setattr("worker.runtime.publisher._PROBE_SECONDS", 0.1)
    monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_TRANSFER_SECONDS", 1)
    store = S3ImageStore(s3_server.bucket("inputs", endpoint=s3_proxy.url))
    s3_proxy.set("hang")
    start = await queue.admit(make_request(init_image=name, strength=0.5))
    other = await queue.admit(make_request(steps=20))
    with run_worker(
        store=store, changes={"store_patience_seconds": 1}, step_seconds=0.01
    ) as worker:
        wait_until(lambda: worker.engine.stats.forwards >= 20)
        wait_until(lambda: worker.publisher.is_down)
        assert {(await queue.get(job.id)).status for job in (start, other)} <= {"queued", "running"}
        s3_proxy.set("pass")
        done = [await queue.wait(job.id, 60) for job in (start, other)]
    assert [(job.status, job.attempts) for job in done] == [("succeeded", 1)] * 2
