"""Traces and JSON logs of real processes: API, worker, sender of webhooks, and what they export."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.collector import Collector, Seen
from tests.support.ports import free_port
from tests.support.receiver import Receiver
from worker.redis_io.server import RedisServer

pytestmark = pytest.mark.timeout(120)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PROMPT = "1girl, a word that no log may have"

WORKER = ("-m", "tests.support.fake_worker", "--step-seconds", "0.05")
SENDER = ("-m", "api.webhooks.sender")


@dataclass
class Fleet:
    """The processes of a service, each with a log of its own."""

    folder: Path
    variables: dict[str, str]
    client: httpx2.Client
    collector: Collector
    processes: dict[str, "subprocess.Popen[bytes]"]

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *arguments], env=self.variables, stdout=output, stderr=output
            )

    def lines(self, name: str) -> list[Any]:
        """The log of a process, every line of which is an object."""
        log = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in log.splitlines()]

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(20)


@pytest.fixture(scope="module")
def fleet(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder, collector, port = tmp_path_factory.mktemp("fleet"), Collector(), free_port()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KIRAZURI_", "OTEL_"))}  # noqa: TID251 - a child's environment
    own = {
        "KIRAZURI_REDIS_URL": shared_redis.url,
        "KIRAZURI_DATA_DIR": str(folder),
        "KIRAZURI_LEASE_SECONDS": "2",
        "KIRAZURI_HEARTBEAT_SECONDS": "0.4",
        "KIRAZURI_MAINTENANCE_SECONDS": "0.3",
        "KIRAZURI_WEBHOOK_SECRET": SECRET,
        "KIRAZURI_WEBHOOK_ALLOW_HTTP": "true",
        "KIRAZURI_WEBHOOK_NETWORKS": "127.0.0.1/32",
        "KIRAZURI_WEBHOOK_RETRY_SECONDS": "0.1",
        "KIRAZURI_LOG_FORMAT": "json",
        "KIRAZURI_LOG_LEVEL": "DEBUG",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
    fleet = Fleet(folder, inherited | own, client, collector, {})
    with client, contextlib.ExitStack() as stack:
        stack.callback(collector.close)
        stack.callback(fleet.stop)
        fleet.start("api", "-m", "api", "--port", str(port))
        fleet.start("worker", *WORKER)
        fleet.start("webhooks", *SENDER)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if client.get("/readyz").status_code == 200:
                    break
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.1)
        yield fleet


@pytest.fixture
def hook() -> Iterator[Receiver]:
    receiver = Receiver(503, 204)
    yield receiver
    receiver.close()


def submit(fleet: Fleet, hook: Receiver, *, span: str, prompt: str = PROMPT, steps: int = 4) -> str:
    answer = fleet.client.post(
        "/generate",
        params={"cancel_on_disconnect": "false"},
        json={"prompt": prompt, "steps": steps, "num_images": 2, "webhook": {"url": hook.url}},
        headers={"traceparent": f"00-{TRACE}-{span}-01", "X-Request-Id": f"request-{span}"},
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def of_request(spans: list[Seen], caller: str) -> list[Seen]:
    """What followed from the caller's span, itself not among it."""
    found, ids = [], {caller}
    while more := [s for s in spans if s.parent in ids and s not in found]:
        found += more
        ids |= {span.id for span in more}
    return found


def is_sent(spans: list[Seen], caller: str, count: int) -> bool:
    return sum(span.name == "send webhook" for span in of_request(spans, caller)) >= count


def named(spans: list[Seen], name: str) -> list[Seen]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.began)


def test_one_trace_from_the_client_to_the_webhook(fleet: Fleet, hook: Receiver) -> None:
    job_id = submit(fleet, hook, span=CALLER)
    first, second = hook.wait_for(2)
    spans = of_request(fleet.collector.wait_for(lambda spans: is_sent(spans, CALLER, 2)), CALLER)
    assert {span.trace for span in spans} == {TRACE}
    assert {span.service for span in spans} == {
        "kirazuri-api", "kirazuri-worker", "kirazuri-webhooks",
    }  # fmt: skip

    (server,) = named(spans, "POST /generate")
    (enqueued,) = named(spans, "enqueue job")
    (attempt,) = named(spans, "process job")
    tries = named(spans, "send webhook")
    assert (server.parent, enqueued.parent, attempt.parent) == (CALLER, server.id, enqueued.id)
    assert (server.kind, enqueued.kind, attempt.kind, tries[0].kind) == (2, 4, 5, 3)
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["kirazuri.request.id"] == f"request-{CALLER}"
    assert server.attributes["url.query"] == "REDACTED"
    assert enqueued.attributes["messaging.message.id"] == job_id
    assert attempt.attributes["kirazuri.job.id"] == job_id
    assert attempt.attributes["kirazuri.outcome"] == "succeeded"
    assert not attempt.is_error

    parts = [span for span in spans if span.parent == attempt.id and span not in tries]
    assert sorted(span.name for span in parts) == sorted(
        ["claim", "encode prompts", "commit"]
        + 2 * ["denoise", "decode image", "encode image", "store image"]
    )
    clock = 0.001  # of what is computed backwards from a duration
    for part in parts:
        assert attempt.began - clock <= part.began <= part.ended <= attempt.ended + clock, part
    order = ["claim", "encode prompts", "denoise", "decode image", "encode image", "store image"]
    ends = [named(parts, name)[0].ended for name in [*order, "commit"]]
    assert ends == sorted(ends)

    assert {span.parent for span in tries} == {attempt.id}
    assert [span.attributes["http.response.status_code"] for span in tries] == [503, 204]
    assert [span.attributes["http.request.resend_count"] for span in tries] == [0, 1]
    assert [span.is_error for span in tries] == [True, False]
    told = [message.headers["traceparent"] for message in (first, second)]
    assert told == [f"00-{TRACE}-{span.id}-01" for span in tries]


def test_attempts_are_linked_and_say_why_there_was_another(fleet: Fleet, hook: Receiver) -> None:
    caller = "00f067aa0ba902b7"
    submit(fleet, hook, span=caller, prompt="1girl, flaky")
    spans = of_request(fleet.collector.wait_for(lambda spans: is_sent(spans, caller, 1)), caller)
    attempts = named(spans, "process job")
    assert [span.attributes["kirazuri.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.attributes["kirazuri.outcome"] for span in attempts] == [
        "retrying", "retrying", "failed",
    ]  # fmt: skip
    assert {span.attributes["error.type"] for span in attempts} == {"engine_error"}
    assert [span.events for span in attempts] == [["retrying"], ["retrying"], []]
    assert [span.links for span in attempts] == [[], [attempts[0].id], [attempts[1].id]]
    assert all(span.is_error for span in attempts)
    assert len({span.parent for span in attempts}) == 1
    assert named(spans, "send webhook")[0].parent == attempts[2].id


def test_the_attempt_of_a_worker_that_was_killed_is_linked_too(
    fleet: Fleet, hook: Receiver
) -> None:
    caller = "53995c3f42cd8ad8"
    job_id = submit(fleet, hook, span=caller, steps=30)
    doomed = fleet.processes["worker"]
    deadline = time.monotonic() + 20
    while fleet.client.get(f"/jobs/{job_id}").json()["progress"]["step"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    doomed.kill()
    doomed.wait(20)
    fleet.start("worker", *WORKER)
    spans = fleet.collector.wait_for(lambda spans: is_sent(spans, caller, 1))
    (attempt,) = named(of_request(spans, caller), "process job")
    assert attempt.attributes["kirazuri.attempt"] == 2
    assert attempt.attributes["kirazuri.outcome"] == "succeeded"
    (before,) = attempt.links
    # It never ended, but what it had done by then was sent.
    assert {span.name for span in spans if span.parent == before} == {"claim", "encode prompts"}


def test_probes_and_their_like_make_no_spans(fleet: Fleet) -> None:
    fleet.client.get("/metrics")
    fleet.client.get("/capabilities")
    spans = fleet.collector.wait_for(lambda spans: bool(named(spans, "GET /capabilities")))
    names = {span.name for span in spans}
    assert not names & {"GET /livez", "GET /readyz", "GET /metrics"}


def test_every_line_is_json_with_the_ids_of_what_it_is_about(fleet: Fleet, hook: Receiver) -> None:
    caller = "1234567890abcdef"
    job_id = submit(fleet, hook, span=caller)
    hook.wait_for(2)
    fleet.collector.wait_for(lambda spans: is_sent(spans, caller, 2))
    about = [
        line
        for name in ("api", "worker", "webhooks")
        for line in fleet.lines(name)
        if line.get("job") == job_id
    ]
    events = [(line["logger"], line["event"]) for line in about]
    assert events == [
        ("api.submit.context", "accepted"),
        ("worker.runtime.slot", "started"),
        ("worker.runtime.slot", "succeeded"),
        ("api.webhooks.sender", "webhook_retried"),
        ("api.webhooks.sender", "webhook_delivered"),
    ]
    assert {line["trace_id"] for line in about} == {TRACE}
    assert {line.get("request") for line in about} == {f"request-{caller}"}
    succeeded = about[2]
    assert succeeded["level"] == "INFO"
    assert isinstance(succeeded["run"], float)
    assert succeeded["attempt"] == 1
    assert succeeded["message"].startswith(f"job={job_id} event=succeeded queue=")
    assert about[3]["host"] == "127.0.0.1"


def test_nothing_secret_is_logged_or_traced(fleet: Fleet, hook: Receiver) -> None:
    fleet.client.get("/jobs/x?token=a-token-in-a-query")
    written = "".join(path.read_text() for path in fleet.folder.glob("*.log"))
    seen = fleet.collector.wait_for(lambda spans: bool(named(spans, "GET /jobs/{job_id}")))
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "no log may have", "a-token-in-a-query"):
        assert secret not in written
        assert secret not in str(seen)
