"""The official Python client, a worker with a fake engine, and pictures to send."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from openai import OpenAI
from PIL import Image

from tests.support.fake_engine import FakeEngine
from worker.images.input_images import HeldImages
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings, redis_dsn
from worker.store.image_store import LocalImageStore
from worker.store.open_store import IMAGES_FOLDER


@contextmanager
def fake_worker(settings: Settings, *, step_seconds: float = 0.01) -> Iterator[FakeEngine]:
    """The real control loop in a thread, around an engine that paints noise."""
    inputs = HeldImages()
    engine = FakeEngine(step_seconds=step_seconds, card=settings.card, read_image=inputs.read)
    worker = BatchWorker(
        connect(redis_dsn(settings)),
        settings,
        engine_factory=lambda: engine,
        inputs=inputs,
        store=LocalImageStore(settings.data_dir / IMAGES_FOLDER),
        version="test 1.0",
    )
    thread = threading.Thread(target=worker.work, name="control")
    thread.start()
    try:
        yield engine
    finally:
        worker.stop()
        worker.stop()
        thread.join(timeout=20)
        worker.connection.close()
        assert not thread.is_alive()


class RecordedExchanges:
    """What a client sent and what came back, attempt by attempt."""

    def __init__(self) -> None:
        self.answers: list[httpx2.Response] = []
        self.sent: list[httpx2.Request] = []

    def hooks(self) -> dict[str, Any]:
        return {"request": [self.sent.append], "response": [self.answers.append]}


@contextmanager
def openai_client(
    url: str, exchanges: RecordedExchanges | None = None, *, key: str = "unused", **options: Any
) -> Iterator[OpenAI]:
    """The official client of a service at `url`, with a key of the service."""
    transport = httpx2.Client(event_hooks=exchanges.hooks() if exchanges else {})
    with (
        transport,
        OpenAI(base_url=f"{url}/v1", api_key=key, http_client=transport, **options) as client,
    ):
        yield client


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def is_error(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The answer's error, once its shape was looked at."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "job_id", "rule", "errors"}
    assert error["message"]
    return error
