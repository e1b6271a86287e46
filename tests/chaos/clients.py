"""Simulated clients: repeat requests, send duplicates and invalid bodies, disconnect, cancel."""

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2

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
    oddities: list[str] = field(default_factory=list)
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
        for number in range(count):
            self._long_ones += 1
            key = uuid.uuid4().hex
            body = {
                "prompt": f"long one {number}",
                "seed": 10**9 + self._long_ones * 10,
                "steps": 100,
                "num_images": 1,
                "resolution": "96x96",
            }
            self._begin(key, self._secrets[0])
            self._insist(body, key, random.Random(self._long_ones))

    def is_done(self) -> bool:
        return all(job.done() for job in self._jobs)

    def finish(self) -> None:
        """Wait for all requests; raises the error of a failed one."""
        for job in self._jobs:
            job.result(timeout=_GIVE_UP_SECONDS)
        self._pool.shutdown()

    def _act(self, number: int, at: float, choice: random.Random) -> None:
        time.sleep(max(0.0, at - time.monotonic()))
        body = {
            "prompt": f"request {number}",
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
                self.ledger.wanted[job_id] = body["num_images"]
                if "webhook" in body:
                    self.ledger.webhooks[job_id] = set(body["webhook"]["events"])
            return True
        if answer.status_code not in (429, 503):
            self._odd(f"POST /generate answered {answer.status_code}: {answer.text[:300]}")
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

    def _cancel(self, key: str, choice: random.Random) -> None:
        time.sleep(choice.uniform(0, 2))
        for job_id in self.ledger.ids[key]:
            try:
                url = f"{choice.choice(self._urls)}/jobs/{job_id}"
                answer = httpx2.delete(url, headers=self._headers(key), timeout=5, trust_env=False)
            except httpx2.HTTPError:
                continue
            if answer.status_code == 202:
                with self.ledger.lock:
                    self.ledger.cancelled.add(job_id)
            elif answer.status_code not in (409, 503):
                self._odd(f"DELETE answered {answer.status_code}")

    def _odd(self, what: str) -> None:
        with self.ledger.lock:
            self.ledger.oddities.append(what)
