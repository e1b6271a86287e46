"""The second client: an honest one that goes on calling while others attack."""

import http.client
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.siege.service import BesiegedService

_PAUSE_SECONDS = 0.02
_TIMEOUT = 30.0
_BODY = json.dumps({"prompt": "masterpiece, best quality, 1girl, blue hair, smile"})
_JSON = {"Content-Type": "application/json"}


@dataclass
class Calls:
    """The calls of one kind: seconds of each, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def milliseconds(self, share: float) -> float:
        """The time within which this share of the calls was answered; infinite without calls."""
        ordered = sorted(self.seconds)
        if not ordered:
            return float("inf")
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


class Bystander:
    """Calls in a thread until the end of the block; watches the memory of the service too."""

    def __init__(self, service: BesiegedService) -> None:
        self._service = service
        self._stop = threading.Event()
        self.probes, self.dry_runs = Calls(), Calls()
        self.most_bytes = 0
        self._threads = [
            threading.Thread(target=self._probe, daemon=True),
            threading.Thread(target=self._plan, daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT)

    def _probe(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            self._call(self.probes, "GET", "/livez", None, {})

    def _plan(self) -> None:
        key = {"Authorization": f"Bearer {self._service.secrets['friend']}"}
        while not self._stop.wait(_PAUSE_SECONDS):
            self._call(self.dry_runs, "POST", "/generate?dry_run=true", _BODY, key | _JSON)

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.most_bytes = max(self.most_bytes, self._service.resident_bytes())

    def _call(
        self, calls: Calls, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> None:
        """One call on a connection of its own."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=_TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            calls.failures.append(f"{path}: {exc!r}")
            return
        finally:
            with suppress(OSError):
                connection.close()
        calls.seconds.append(time.perf_counter() - started)
        if answer.status != 200:
            calls.failures.append(f"{path}: {answer.status} {text[:200]!r}")
