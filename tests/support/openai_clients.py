"""The official OpenAI client for Python, and a worker in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from openai import OpenAI

from tests.support.fake_engine import FakeEngine
from worker.images.input_images import HeldImages
from worker.redis_io.client import connect
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings, redis_dsn
from worker.store.image_store import LocalImageStore
from worker.store.open_store import IMAGES_FOLDER


@contextmanager
def fake_worker(settings: Settings, *, step_seconds: float = 0.01) -> Iterator[FakeEngine]:
    """A real worker in a thread, with an engine that returns noise."""
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
        thread.join(timeout=60)
        worker.connection.close()
        assert not thread.is_alive()


class RecordedExchanges:
    """The requests that a client sends and the responses that it receives."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.responses: list[httpx2.Response] = []

    def hooks(self) -> dict[str, Any]:
        return {"request": [self.requests.append], "response": [self.responses.append]}


@contextmanager
def openai_client(
    url: str, exchanges: RecordedExchanges | None = None, *, key: str = "unused", **options: Any
) -> Iterator[OpenAI]:
    """The official client of the service at `url`. Its own timeout would be ten minutes."""
    hooks = exchanges.hooks() if exchanges else {}
    transport = httpx2.Client(event_hooks=hooks, timeout=60)
    options = {"timeout": 60, **options, "http_client": transport}
    with transport, OpenAI(base_url=f"{url}/v1", api_key=key, **options) as client:
        yield client


def read_openai_error(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The `error` of an error response; checks its status and format."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "job_id", "rule", "errors"}
    assert error["message"]
    return error
