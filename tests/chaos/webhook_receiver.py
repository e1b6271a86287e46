"""An unreliable receiver of webhooks: rejects some, closes connections, records the rest."""

import base64
import random
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import redis
from standardwebhooks import Webhook as Signer
from standardwebhooks import WebhookVerificationError

from worker.queue.layout import redis_keys

SECRET = "whsec_" + base64.b64encode(b"chaos" * 6).decode()

SETTINGS = {
    "KIRAZURI_WEBHOOK_SECRET": SECRET,
    "KIRAZURI_WEBHOOK_ALLOW_HTTP": "true",
    "KIRAZURI_WEBHOOK_NETWORKS": "127.0.0.1/32",
    "KIRAZURI_WEBHOOK_TIMEOUT_SECONDS": "2",
    "KIRAZURI_WEBHOOK_RETRY_SECONDS": ",".join(["0.2", "0.5", *["1"] * 20]),
}
"""Many quick retries, because the drill checks delivery and not the schedule."""


@dataclass
class WebhookReceiver:
    """Listens on a free loopback port. `received` has the accepted bodies by webhook id."""

    seed: int
    received: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    repeated: int = 0
    refused: int = 0
    problems_seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status = receiver._answer(self)
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """The report has the numbers."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(
            target=self._server.serve_forever, name="webhook-receiver", daemon=True
        ).start()

    def _answer(self, handler: BaseHTTPRequestHandler) -> int | None:
        """The status of the response; None closes the connection."""
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            choice = self._random.random()
            if choice < 0.15:
                self.refused += 1
                return 503 if choice < 0.1 else None
            try:
                Signer(SECRET).verify(body, headers)
            except WebhookVerificationError as exc:
                self.problems_seen.append(f"webhook {headers.get('webhook-id')}: {exc}")
            bodies = self.received[headers["webhook-id"]]
            self.repeated += bool(bodies)
            bodies.add(body)
        return 204 if choice < 0.95 else None  # accepted without a response, so it is sent again

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def problems(self, client: "redis.Redis", wanted: dict[str, set[str]]) -> list[str]:
        """Missing, unexpected and inconsistent webhooks; `wanted` has the events by job."""
        with self._lock:
            received, found = dict(self.received), list(self.problems_seen)
        expected: set[str] = set()
        for job_id, names in wanted.items():
            events: Any = client.xrange(redis_keys.events_key(job_id))
            expected |= {f"{job_id}-{n}" for n, fields in events if fields["event"] in names}
        missing, extra = expected - set(received), set(received) - expected
        found += [f"webhook {delivery} never arrived" for delivery in sorted(missing)]
        found += [f"webhook {delivery} is of no event" for delivery in sorted(extra)]
        found += [f"webhook {n} had {len(b)} bodies" for n, b in received.items() if len(b) > 1]
        left = (
            client.zcard(redis_keys.OUTBOX),
            sum(1 for _ in client.scan_iter("kirazuri:delivery:*")),
        )
        if any(left):
            found.append(f"{left[0]} left in the outbox, {left[1]} deliveries")
        return found
