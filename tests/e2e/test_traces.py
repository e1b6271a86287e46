"""Traces and JSON logs of real processes: API, worker and webhook sender."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.collector import Collector, ReceivedSpan
from tests.support.ports import free_port
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from worker.redis_io.server import RedisServer

pytestmark = pytest.mark.timeout(300)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PROMPT = "1girl, a word that no log may have"

WORKER = ("-m", "tests.support.fake_worker", "--step-seconds", "0.05")
SENDER = ("-m", "api.webhooks.sender")


@dataclass
class Processes:
    """The processes of a service, each with its own log."""

    folder: Path
    variables: dict[str, str]
    client: httpx2.Client
    collector: Collector
    running: dict[str, "subprocess.Popen[bytes]"]

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments], env=self.variables, stdout=output, stderr=output
            )

    def lines(self, name: str) -> list[Any]:
        """The log of a process; every line is a JSON object."""
        log = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in log.splitlines()]

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(120)


@pytest.fixture(scope="module")
def processes(
    shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    folder, collector, port = tmp_path_factory.mktemp("processes"), Collector(), free_port()
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
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False)
    processes = Processes(folder, inherited | own, client, collector, {})
    with client, contextlib.ExitStack() as stack:
        stack.callback(collector.close)
        stack.callback(processes.stop)
        processes.start("api", "-m", "api", "--port", str(port))
        processes.start("worker", *WORKER)
        processes.start("webhooks", *SENDER)
        wait_until(lambda: is_ready(client), seconds=120)
        yield processes


def is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def hook() -> Iterator[Receiver]:
    receiver = Receiver(503, 204)
    yield receiver
    receiver.close()


def submit(processes: Processes, hook: Receiver, *, span: str, prompt: str = PROMPT) -> str:
    answer = processes.client.post(
        "/generate",
        params={"cancel_on_disconnect": "false"},
        json={"prompt": prompt, "steps": 4, "num_images": 2, "webhook": {"url": hook.url}},
        headers={"traceparent": f"00-{TRACE}-{span}-01", "X-Request-Id": f"request-{span}"},
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def of_request(spans: list[ReceivedSpan], caller: str) -> list[ReceivedSpan]:
    """All descendants of the caller's span."""
    found, ids = [], {caller}
    while more := [s for s in spans if s.parent in ids and s not in found]:
        found += more
        ids |= {span.id for span in more}
    return found


def is_sent(spans: list[ReceivedSpan], caller: str, count: int) -> bool:
    return sum(span.name == "send webhook" for span in of_request(spans, caller)) >= count


def named(spans: list[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.began)


def test_one_trace_from_the_client_to_the_webhook(processes: Processes, hook: Receiver) -> None:
    job_id = submit(processes, hook, span=CALLER)
    first, second = hook.wait_for(2)
    spans = of_request(
        processes.collector.wait_for(lambda spans: is_sent(spans, CALLER, 2)), CALLER
    )
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
    clock = 0.001  # for times that are computed from a duration
    for part in parts:
        assert attempt.began - clock <= part.began <= part.ended <= attempt.ended + clock, part
    order = ["claim", "encode prompts", "denoise", "decode image", "encode image", "store image"]
    ends = [[span.ended for span in named(parts, name)] for name in [*order, "commit"]]
    # Either picture may overtake the other, so each part's first and last end are compared.
    firsts, lasts = [min(times) for times in ends], [max(times) for times in ends]
    assert firsts == sorted(firsts)
    assert lasts == sorted(lasts)

    assert {span.parent for span in tries} == {attempt.id}
    assert [span.attributes["http.response.status_code"] for span in tries] == [503, 204]
    assert [span.attributes["http.request.resend_count"] for span in tries] == [0, 1]
    assert [span.is_error for span in tries] == [True, False]
    sent = [message.headers["traceparent"] for message in (first, second)]
    assert sent == [f"00-{TRACE}-{span.id}-01" for span in tries]


def test_attempts_are_linked_and_have_a_reason(processes: Processes, hook: Receiver) -> None:
    caller = "00f067aa0ba902b7"
    submit(processes, hook, span=caller, prompt="1girl, flaky")
    spans = of_request(
        processes.collector.wait_for(lambda spans: is_sent(spans, caller, 1)), caller
    )
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
    processes: Processes, hook: Receiver
) -> None:
    caller = "53995c3f42cd8ad8"
    may_go_on, earlier = processes.folder / "may-go-on", len(processes.collector.spans)
    submit(processes, hook, span=caller, prompt=f"1girl until={may_go_on}")
    processes.collector.wait_for(
        lambda spans: {"claim", "encode prompts"} <= {span.name for span in spans[earlier:]}
    )
    doomed = processes.running["worker"]
    doomed.kill()
    doomed.wait(120)
    may_go_on.touch()
    processes.start("worker", *WORKER)
    spans = processes.collector.wait_for(lambda spans: is_sent(spans, caller, 1))
    (attempt,) = named(of_request(spans, caller), "process job")
    assert attempt.attributes["kirazuri.attempt"] == 2
    assert attempt.attributes["kirazuri.outcome"] == "succeeded"
    (before,) = attempt.links
    # It never ended, but its finished parts were exported.
    assert {span.name for span in spans if span.parent == before} == {"claim", "encode prompts"}


def test_probes_and_metrics_make_no_spans(processes: Processes) -> None:
    processes.client.get("/metrics")
    processes.client.get("/capabilities")
    spans = processes.collector.wait_for(lambda spans: bool(named(spans, "GET /capabilities")))
    names = {span.name for span in spans}
    assert not names & {"GET /livez", "GET /readyz", "GET /metrics"}


def test_every_line_is_json_with_job_trace_and_request_ids(
    processes: Processes, hook: Receiver
) -> None:
    caller = "1234567890abcdef"
    job_id = submit(processes, hook, span=caller)
    hook.wait_for(2)
    processes.collector.wait_for(lambda spans: is_sent(spans, caller, 2))
    about = [
        line
        for name in ("api", "worker", "webhooks")
        for line in processes.lines(name)
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


def test_nothing_secret_is_logged_or_traced(processes: Processes, hook: Receiver) -> None:
    processes.client.get("/jobs/x?token=a-token-in-a-query")
    written = "".join(path.read_text() for path in processes.folder.glob("*.log"))
    seen = processes.collector.wait_for(lambda spans: bool(named(spans, "GET /jobs/{job_id}")))
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "no log may have", "a-token-in-a-query"):
        assert secret not in written
        assert secret not in str(seen)
