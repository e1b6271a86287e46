"""A webhook receiver, which is a real HTTP server on loopback, and a sender in a thread."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from api.webhooks import url_policy
from api.webhooks.pinned_client import PinnedClient
from api.webhooks.sender import WebhookSender
from api.webhooks.url_policy import Resolve, UrlPolicy
from worker.queue.outbox import Outbox
from worker.redis_io.client import connect_async, disconnect
from worker.settings import Settings, redis_dsn


@dataclass(frozen=True)
class Received:
    """One received request and its time."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def message(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers requests with `answers` in turn and repeats the last one.

    An answer is a status, or a function that gets the handler and answers itself.
    """

    def __init__(
        self,
        *answers: int | Callable[[BaseHTTPRequestHandler], None],
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.received: list[Received] = []
        self._answers = list(answers) or [204]
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host, self.port = host, self._server.server_port
        self.url = f"http://{host}:{self.port}/hook"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.received.append(Received(handler.path, headers, body, time.monotonic()))
            answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if callable(answer):
            answer(handler)
            return
        handler.send_response(answer)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    def wait_for(self, count: int, *, seconds: float = 60) -> list[Received]:
        """Wait until `count` requests have arrived; returns all."""
        deadline = time.monotonic() + seconds
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"{len(self.received)} of {count} arrived"
            time.sleep(0.01)
        return self.received

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)


@contextmanager
def sending(
    settings: Settings,
    *,
    resolve: Resolve = url_policy.resolve,
    tls: ssl.SSLContext | None = None,
    lease_seconds: float = 120,
) -> Iterator[None]:
    """Run a webhook sender in a thread."""
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        redis = connect_async(redis_dsn(settings))
        client = PinnedClient(
            UrlPolicy.from_settings(settings),
            seconds=settings.webhook_timeout_seconds,
            resolve=resolve,
            tls=tls,
        )
        sender = WebhookSender(Outbox(redis, lease_seconds=lease_seconds), client, settings)
        loop = asyncio.get_running_loop()
        stop.append(partial(loop.call_soon_threadsafe, sender.stop))
        started.set()
        try:
            await sender.run()
        finally:
            await client.close()
            await disconnect(redis)

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="sender")
    thread.start()
    assert started.wait(60)
    try:
        yield
    finally:
        stop[0]()
        thread.join(60)
        assert not thread.is_alive()
