"""A receiver of webhooks that is moody: it refuses some, hangs up on others, and remembers all."""

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
"""Many quick tries: what is to be seen is that none is lost, not how patient the schedule is."""


@dataclass
class WebhookReceiver:
    """Listens on a free loopback port. `heard` holds, by id, the bodies of what it took."""

    seed: int
    heard: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    again: int = 0
    refused: int = 0
    oddities: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._mood = random.Random(self.seed)
        self._lock = threading.Lock()
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status = ear._take(self)
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """The report tells."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, name="ear", daemon=True).start()

    def _take(self, handler: BaseHTTPRequestHandler) -> int | None:
        """The status to answer with; None hangs up."""
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            mood = self._mood.random()
            if mood < 0.15:
                self.refused += 1
                return 503 if mood < 0.1 else None
            try:
                Signer(SECRET).verify(body, headers)
            except WebhookVerificationError as exc:
                self.oddities.append(f"webhook {headers.get('webhook-id')}: {exc}")
            bodies = self.heard[headers["webhook-id"]]
            self.again += bool(bodies)
            bodies.add(body)
        return 204 if mood < 0.95 else None  # taken, and nobody knows: it comes again

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def problems(self, client: "redis.Redis", wanted: dict[str, set[str]]) -> list[str]:
        """What is missing, told too much or told differently. `wanted`: events by job."""
        with self._lock:
            heard, found = dict(self.heard), list(self.oddities)
        expected: set[str] = set()
        for job_id, names in wanted.items():
            events: Any = client.xrange(redis_keys.events_key(job_id))
            expected |= {f"{job_id}-{n}" for n, fields in events if fields["event"] in names}
        missing, extra = expected - set(heard), set(heard) - expected
        found += [f"webhook {delivery} never arrived" for delivery in sorted(missing)]
        found += [f"webhook {delivery} is of no event" for delivery in sorted(extra)]
        found += [f"webhook {n} had {len(b)} bodies" for n, b in heard.items() if len(b) > 1]
        left = (
            client.zcard(redis_keys.OUTBOX),
            sum(1 for _ in client.scan_iter("kirazuri:delivery:*")),
        )
        if any(left):
            found.append(f"{left[0]} left in the outbox, {left[1]} deliveries")
        return found
