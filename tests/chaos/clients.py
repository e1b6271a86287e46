"""Simulated clients: repeat requests, send duplicates and invalid bodies, disconnect, cancel."""

import asyncio
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2

from cli.bench.exchange import Connection

_GIVE_UP_SECONDS = 120


@dataclass
class JobLedger:
    """Everything that the service promised its clients. Written by many threads."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    webhooks: dict[str, set[str]] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    refused: int = 0
    oddities: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def accepted(self) -> list[str]:
        """Ids of all accepted jobs."""
        with self.lock:
            return sorted(job_id for ids in self.ids.values() for job_id in ids)


class Clients:
    """`count` requests over `seconds`, from a few threads, to random APIs with random keys.

    Half of them request a webhook to `webhook_url`. The first of the `secrets` is used most.
    """

    def __init__(
        self,
        urls: list[str],
        *,
        secrets: list[str],
        webhook_url: str,
        count: int,
        seconds: float,
        seed: int,
    ) -> None:
        self.ledger = JobLedger()
        self._urls = urls
        self._secrets = secrets
        self._webhook_url = webhook_url
        self._long_ones = 0
        self._is_busy = threading.Event()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="client")
        choice = random.Random(seed)
        began = time.monotonic()
        self._jobs = [
            self._pool.submit(
                self._act, n, began + choice.uniform(0, seconds), random.Random(seed * 1000 + n)
            )
            for n in sorted(range(count), key=lambda n: n)
        ]

    def submit_long_ones(self, count: int) -> None:
        """Submit `count` jobs of 100 steps until they are accepted."""
        for _ in range(count):
            self._long_ones += 1
            key = uuid.uuid4().hex
            body = {
                "prompt": "long one",
                "seed": 10**9 + self._long_ones * 10,
                "steps": 100,
                "num_images": 1,
                "resolution": "96x96",
            }
            self._begin(key, self._secrets[0])
            self._insist(body, key, random.Random(self._long_ones))

    def keep_busy(self, first: int) -> None:
        """Send two requests a second from now on, numbered from `first`, until `finish`."""
        self._is_busy.set()

        def send() -> None:
            number = first
            while self._is_busy.is_set():
                choice = random.Random(number)
                self._jobs.append(self._pool.submit(self._act, number, 0.0, choice))
                number += 1
                time.sleep(0.5)

        threading.Thread(target=send, name="busy-clients", daemon=True).start()

    def submit_probe(self) -> str | None:
        """Submit a short job once; its id, or None if it is not accepted."""
        key = uuid.uuid4().hex
        self._begin(key, self._secrets[-1])
        is_accepted = self._post(self._short_body(), key, random.Random(), timeout=3)
        return next(iter(self.ledger.ids[key]), None) if is_accepted else None

    def submit_probes(self, count: int) -> list[str]:
        """Submit `count` short jobs; the ids of those that were accepted."""
        found = (self.submit_probe() for _ in range(count))
        return [job_id for job_id in found if job_id]

    def storm(self, count: int) -> None:
        """Submit `count` jobs at once, then cancel all at once; nobody gets 503."""
        keys = [uuid.uuid4().hex for _ in range(count)]
        for key in keys:
            self._begin(key, self._secrets[0])
        with ThreadPoolExecutor(32, thread_name_prefix="storm") as pool:
            list(pool.map(self._storm_once, keys))
            list(pool.map(lambda key: self._cancel(key, random.Random(), is_calm=True), keys))

    def _storm_once(self, key: str) -> None:
        body = {**self._short_body(), "steps": 100}
        if not self._post(body, key, random.Random(), timeout=30):
            self._odd("a request of the storm was refused or not answered")
            self._insist(body, key, random.Random())

    def wait_together(self, count: int) -> None:
        """Wait for `count` short jobs at once; each gets its picture, or 202 and its job."""
        asyncio.run(self._wait_together(count))

    async def _wait_together(self, count: int) -> None:
        await asyncio.gather(*(self._wait_once(number) for number in range(count)))

    async def _wait_once(self, number: int) -> None:
        url = self._urls[number % len(self._urls)]
        body, key = self._short_body(), uuid.uuid4().hex
        self._begin(key, self._secrets[number % len(self._secrets)])
        headers = {**self._headers(key), "Idempotency-Key": key, "Prefer": "wait=60"}
        headers["Content-Type"] = "application/json"
        connection = await Connection.open(int(url.rpartition(":")[2]))
        answer = await connection.exchange("POST", "/generate", headers, json.dumps(body))
        connection.close()
        if answer.status not in (200, 202):
            code = json.loads(answer.body).get("code")
            self._odd(f"a waiting client got {answer.status} {code}")
            return
        job = json.loads(answer.body)
        if answer.status == 200 and len(job["images"]) != 1:
            self._odd(f"a waiting client got 200 and {len(job['images'])} pictures")
        with self.ledger.lock:
            self.ledger.ids[key].add(job["id"])
            self.ledger.wanted[job["id"]] = 1

    def _short_body(self) -> dict[str, Any]:
        with self.ledger.lock:
            self._long_ones += 1
            seed = 2 * 10**9 + self._long_ones * 10
        return {"prompt": "short one", "seed": seed, "steps": 5, "resolution": "96x96"}

    def finish(self, tend: Callable[[], None]) -> None:
        """Wait for all requests, tending meanwhile; raises the error of a failed one."""
        self._is_busy.clear()
        while not all(job.done() for job in list(self._jobs)):
            tend()
            time.sleep(0.1)
        for job in list(self._jobs):
            job.result(timeout=_GIVE_UP_SECONDS)
        self._pool.shutdown()

    def _act(self, number: int, at: float, choice: random.Random) -> None:
        time.sleep(max(0.0, at - time.monotonic()))
        body = {
            "prompt": "request",
            "seed": number * 10,
            "steps": choice.randint(5, 60),
            "num_images": choice.choice([1, 1, 2]),
            "resolution": "96x96",
        }
        if choice.random() < 0.5:
            events = choice.choice([["succeeded", "failed", "cancelled"], ["started", "succeeded"]])
            body["webhook"] = {"url": self._webhook_url, "events": events}
        kind = choice.choice(["plain"] * 5 + ["twice", "nonsense", "hang up", "cancel"])
        key = uuid.uuid4().hex
        self._begin(key, choice.choice([self._secrets[0], *self._secrets]))
        if kind == "nonsense":
            self._nonsense(body, key, choice)
        if kind == "hang up":
            self._post(body, key, choice, timeout=0.02)
        times = 2 if kind == "twice" else 1
        threads = [
            threading.Thread(target=self._insist, args=(body, key, choice)) for _ in range(times)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if kind == "cancel":
            self._cancel(key, choice)

    def _begin(self, key: str, secret: str) -> None:
        """Record the idempotency key and the API key of a request."""
        with self.ledger.lock:
            self.ledger.ids[key], self.ledger.secrets[key] = set(), secret

    def _headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.ledger.secrets[key]}"}

    def _insist(self, body: dict[str, Any], key: str, choice: random.Random) -> None:
        """Send until it is accepted; the idempotency key makes that safe."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while not self._post(body, key, choice, timeout=5):
            if time.monotonic() > deadline:
                self._odd(f"request {body['seed']} was not accepted in time")
                return
            time.sleep(choice.uniform(0.05, 0.5))

    def _post(
        self, body: dict[str, Any], key: str, choice: random.Random, *, timeout: float
    ) -> bool:
        try:
            answer = httpx2.post(
                f"{choice.choice(self._urls)}/generate",
                json=body,
                headers={"Idempotency-Key": key, **self._headers(key)},
                timeout=timeout,
                trust_env=False,
            )
        except httpx2.HTTPError:
            return False
        if answer.status_code == 202:
            job_id = answer.json()["id"]
            with self.ledger.lock:
                self.ledger.ids[key].add(job_id)
                self.ledger.wanted[job_id] = body.get("num_images", 1)
                if "webhook" in body:
                    self.ledger.webhooks[job_id] = set(body["webhook"]["events"])
            return True
        if answer.status_code not in (429, 503):
            self._odd(f"POST /generate answered {answer.status_code} {answer.json()['code']}")
        elif "retry-after" not in answer.headers:
            self._odd(f"{answer.status_code} without Retry-After")
        return False

    def _nonsense(self, body: dict[str, Any], key: str, choice: random.Random) -> None:
        name, value = choice.choice([("steps", -1), ("sampler", "x"), ("seed", "a"), ("extra", 1)])
        wrong = {**body, name: value}
        try:
            url = f"{choice.choice(self._urls)}/generate"
            answer = httpx2.post(
                url, json=wrong, headers=self._headers(key), timeout=5, trust_env=False
            )
        except httpx2.HTTPError:
            return
        if answer.status_code == 422:
            with self.ledger.lock:
                self.ledger.refused += 1
        else:
            self._odd(f"nonsense {name}={value} got {answer.status_code}")

    def _cancel(self, key: str, choice: random.Random, *, is_calm: bool = False) -> None:
        """Cancel a request's jobs. While all is calm it is done at once, and none gets 503."""
        time.sleep(0 if is_calm else choice.uniform(0, 2))
        for job_id in self.ledger.ids[key]:
            try:
                url = f"{choice.choice(self._urls)}/jobs/{job_id}"
                timeout = 30 if is_calm else 5
                answer = httpx2.delete(
                    url, headers=self._headers(key), timeout=timeout, trust_env=False
                )
            except httpx2.HTTPError as exc:
                if is_calm:
                    self._odd(f"DELETE was not answered: {exc!r}")
                continue
            if answer.status_code == 202:
                with self.ledger.lock:
                    self.ledger.cancelled.add(job_id)
            elif answer.status_code != 409 and (is_calm or answer.status_code != 503):
                self._odd(f"DELETE answered {answer.status_code}")

    def _odd(self, what: str) -> None:
        with self.ledger.lock:
            self.ledger.oddities[what] += 1
