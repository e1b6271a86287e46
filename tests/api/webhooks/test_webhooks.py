"""Webhooks from the request to the receiver: what is asked, sent, signed, tried again, refused."""

import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from redis import Redis
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from api.webhooks.sender import PER_HOST
from tests.support.api_calls import PROMPT, read_metrics, read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.receiver import Received, Receiver, sending
from worker.job_errors import job_error
from worker.queue.layout import redis_keys, rq_layout
from worker.redis_io import server as redis_server
from worker.redis_io.server import RedisServer
from worker.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Make = Callable[..., Receiver]


@pytest.fixture(scope="module")
def settings(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        _env_file=None,
        redis_url=shared_redis.url,
        data_dir=tmp_path_factory.mktemp("data"),
        max_queue=100,
        webhook_secret=SECRET,
        webhook_allow_http=True,
        webhook_networks="127.0.0.1/32",
        webhook_retry_seconds="0.1,0.3",
        webhook_timeout_seconds=2,
    )


@pytest.fixture
def receiver() -> Iterator[Make]:
    """`receiver(503, 204)` is a server that answers so."""
    made: list[Receiver] = []

    def make(*answers: int | Callable[[BaseHTTPRequestHandler], None], **options: Any) -> Receiver:
        made.append(Receiver(*answers, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def finished(client: httpx2.Client, worker: ManualWorker, url: str, *events: str) -> str:
    """The id of a job that succeeded and has this webhook."""
    webhook = {"url": url, "events": list(events)} if events else {"url": url}
    job_id = submit_job(client, webhook=webhook)
    worker.claim(job_id)
    worker.finish(job_id, b"picture")
    return job_id


def log_of(client: httpx2.Client, job_id: str, length: int, *, seconds: float = 10) -> list[Any]:
    """The job's log of deliveries, once it has so many entries."""
    deadline = time.monotonic() + seconds
    while True:
        log: list[Any] = client.get(f"/jobs/{job_id}").json()["webhook"]["deliveries"]
        if len(log) >= length:
            assert len(log) == length
            return log
        assert time.monotonic() < deadline, log
        time.sleep(0.02)


def verified(received: Received, secret: str = SECRET) -> Any:
    return Verifier(secret).verify(received.body, received.headers)


def assert_outbox_is_empty(redis: "Redis") -> None:
    assert redis.zcard(redis_keys.OUTBOX) == 0
    assert redis.keys("kirazuri:delivery:*") == []


# -- what is sent ----------------------------------------------------------------------------------


def test_the_end_of_a_job_is_told(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    answer = client.post(
        "/generate",
        json={"prompt": PROMPT, "webhook": {"url": f"{hook.url}?key=secret"}},
        headers={"traceparent": TRACE},
    )
    job = answer.json()
    assert job["webhook"] == {
        "url": f"{hook.url}?…",
        "events": ["succeeded", "failed", "cancelled"],
        "deliveries": [],
    }
    worker.claim(job["id"])
    worker.finish(job["id"], b"picture")
    shown = client.get(f"/jobs/{job['id']}").json()
    with sending(settings):
        (received,) = hook.wait_for(1)
        (entry,) = log_of(client, job["id"], 1)
    message = verified(received)
    assert message["type"] == "job.succeeded"
    assert message["data"] == shown
    assert client.get(message["data"]["images"][0]["url"]).content == b"picture"
    assert abs(_seconds(message["timestamp"]) - _seconds(shown["finished_at"])) < 0.01
    assert received.path == "/hook?key=secret"
    assert received.headers["host"] == f"127.0.0.1:{hook.port}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["traceparent"] == TRACE
    assert received.headers["user-agent"].startswith("kirazuri-server/")
    assert "secret" not in received.body.decode()
    assert entry == {
        "id": received.headers["webhook-id"],
        "event": "succeeded",
        "attempt": 1,
        "at": entry["at"],
        "seconds": entry["seconds"],
        "status": 204,
        "error": None,
        "next_at": None,
    }
    assert 0 <= _seconds(entry["at"]) - _seconds(shown["finished_at"]) < 5
    assert_outbox_is_empty(worker.redis)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_each_event_that_was_asked_for_and_no_other(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    started = submit_job(client, webhook={"url": hook.url, "events": ["started", "started"]})
    failed = submit_job(client, webhook={"url": hook.url, "events": ["failed"]})
    cancelled = submit_job(client, webhook={"url": hook.url})
    untold = submit_job(client, webhook={"url": hook.url, "events": ["failed"]})
    silent = submit_job(client)
    for job_id in (started, failed, untold, silent):
        worker.claim(job_id)
    worker.step(started, 3, 20)
    worker.end(failed, "failed", error=job_error("non_finite", "NaN"))
    client.delete(f"/jobs/{cancelled}")
    for job_id in (started, untold, silent):
        worker.finish(job_id, b"picture")
    with sending(settings):
        arrived = hook.wait_for(3)
        time.sleep(0.3)
    assert len(arrived) == 3
    told = {message["data"]["id"]: message for message in map(verified, arrived)}
    assert told[started]["type"] == "job.started"
    # As it was when it started, though it has succeeded since.
    assert told[started]["data"]["status"] == "running"
    assert told[started]["data"]["progress"]["step"] == 0
    assert told[started]["data"]["finished_at"] is None
    assert told[failed]["type"] == "job.failed"
    assert told[failed]["data"]["error"]["code"] == "non_finite"
    assert told[cancelled]["type"] == "job.cancelled"
    assert told[cancelled]["data"]["status"] == "cancelled"


def test_every_attempt_at_a_job_is_told_as_started(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    job_id = submit_job(client, webhook={"url": hook.url, "events": ["started"]})
    worker.claim(job_id)
    worker.redis.zrem(rq_layout.leases_key(), f"{job_id}:token")
    worker.redis.hset(redis_keys.job_key(job_id), "token", "a worker that died")
    worker.claim(job_id)
    with sending(settings):
        arrived = hook.wait_for(2)
    assert sorted(received.message["data"]["attempts"] for received in arrived) == [1, 2]
    assert len({received.headers["webhook-id"] for received in arrived}) == 2


def test_urls_begin_as_the_client_called(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    answer = client.post(
        "/generate",
        json={"prompt": PROMPT, "webhook": {"url": hook.url}},
        headers={"host": "pictures.localhost"},
    )
    job_id = answer.json()["id"]
    client.delete(f"/jobs/{job_id}")
    with sending(settings):
        (received,) = hook.wait_for(1)
    assert received.message["data"]["links"]["self"] == f"http://pictures.localhost/jobs/{job_id}"


def test_both_secrets_sign_while_one_takes_over(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    finished(client, worker, hook.url)
    both = settings.model_dump() | {"webhook_secret": f"{SECRET} {OLD_SECRET}"}
    with sending(Settings(_env_file=None, **both)):
        (received,) = hook.wait_for(1)
    assert verified(received, SECRET) == verified(received, OLD_SECRET)
    with pytest.raises(WebhookVerificationError):
        verified(received, "whsec_" + "A" * 32)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(received.body.replace(b"succeeded", b"failed"), received.headers)


# -- what is tried again ---------------------------------------------------------------------------


def test_failures_are_tried_again_after_their_delays(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver(500, 429, 200)
    job_id = finished(client, worker, hook.url)
    with sending(settings):
        first, second, third = hook.wait_for(3)
        log = log_of(client, job_id, 3)
    assert first.body == second.body == third.body
    assert len({received.headers["webhook-id"] for received in hook.received}) == 1
    assert verified(third)["data"]["id"] == job_id
    # The delay, a tenth more at most, and the time until the sender looks.
    assert 0.1 <= second.at - first.at < 5
    assert 0.3 <= third.at - second.at < 5
    assert [(entry["attempt"], entry["status"], entry["error"]) for entry in log] == [
        (1, 500, "bad_status"),
        (2, 429, "bad_status"),
        (3, 200, None),
    ]
    for entry, delay in zip(log, (0.1, 0.3), strict=False):
        waits = _seconds(entry["next_at"]) - _seconds(entry["at"]) - entry["seconds"]
        assert delay <= waits + 0.002
        assert waits <= 1.1 * delay + 0.1
    assert log[-1]["next_at"] is None
    numbers = read_metrics(client)
    assert numbers["kirazuri_webhook_attempts_total", "delivered"] == 1
    assert numbers["kirazuri_webhook_attempts_total", "retried"] == 2


def test_at_last_it_is_given_up(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver(503)
    job_id = finished(client, worker, hook.url)
    assert read_metrics(client)["kirazuri_webhooks_pending",] == 1
    time.sleep(0.1)
    assert read_metrics(client)["kirazuri_webhooks_late_seconds",] >= 0.1
    with sending(settings):
        log = log_of(client, job_id, 3)
        time.sleep(0.5)
    assert len(hook.received) == 3
    assert [bool(entry["next_at"]) for entry in log] == [True, True, False]
    numbers = read_metrics(client)
    assert numbers["kirazuri_webhook_attempts_total", "given_up"] == 1
    assert numbers["kirazuri_webhooks_pending",] == 0
    assert numbers["kirazuri_webhooks_late_seconds",] == 0
    assert_outbox_is_empty(worker.redis)


def test_gone_ends_all_that_the_job_would_still_tell(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver(410)
    job_id = submit_job(client, webhook={"url": hook.url, "events": ["started", "succeeded"]})
    worker.claim(job_id)
    with sending(settings):
        (entry,) = log_of(client, job_id, 1)
        worker.finish(job_id, b"picture")
        time.sleep(0.6)
    assert (entry["status"], entry["error"], entry["next_at"]) == (410, "bad_status", None)
    assert len(hook.received) == 1
    assert_outbox_is_empty(worker.redis)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2.5)


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def speaks_nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def redirects(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(307)
    handler.send_header("Location", handler.path + "/elsewhere")
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (silent, None, "timeout"),
        (hangs_up, None, "connection_lost"),
        (speaks_nonsense, None, "connection_lost"),
        (redirects, 307, "redirect"),
        (404, 404, "bad_status"),
    ],
)
def test_what_receivers_do_wrong(
    answer: Any,
    status: int | None,
    error: str,
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: Make,
) -> None:
    hook = receiver(answer, 204)
    job_id = finished(client, worker, hook.url)
    with sending(settings):
        first, second = log_of(client, job_id, 2)
    assert (first["status"], first["error"]) == (status, error)
    assert second["status"] == 204
    # A redirect would have come to the same server under another path.
    assert [received.path for received in hook.received] == ["/hook", "/hook"]


def test_a_receiver_that_is_not_there(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    job_id = finished(client, worker, f"http://127.0.0.1:{closed_port()}/")
    with sending(settings):
        log = log_of(client, job_id, 3)
    assert {(entry["status"], entry["error"]) for entry in log} == {(None, "connection_failed")}


def test_the_body_of_an_answer_is_not_waited_for(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            handler.close_connection = True

    hook = receiver(endless)
    job_id = finished(client, worker, hook.url)
    with sending(settings):
        (entry,) = log_of(client, job_id, 1)
        time.sleep(0.5)
    assert entry["status"] == 200
    assert entry["seconds"] < 1.9
    assert len(hook.received) == 1


def test_a_slow_receiver_does_not_hold_up_the_others(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    lock, under_way, most = threading.Lock(), [0], [0]

    def slow(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(2)
        with lock:
            under_way[0] -= 1
        handler.send_response(204)
        handler.end_headers()

    waiting, quick = receiver(slow), receiver()
    # Told apart by name: `localhost` is another host than 127.0.0.1.
    slow_url = waiting.url.replace("127.0.0.1", "localhost")
    for _ in range(2 * PER_HOST):
        finished(client, worker, slow_url)
    finished(client, worker, quick.url)
    _, resolve = resolver(["127.0.0.1"])
    with sending(settings.model_copy(update={"webhook_timeout_seconds": 20.0}), resolve=resolve):
        (prompt,) = quick.wait_for(1)
        delayed = waiting.wait_for(2 * PER_HOST, seconds=20)
    assert most[0] == PER_HOST
    assert prompt.at < delayed[PER_HOST].at
    assert len({received.headers["webhook-id"] for received in delayed}) == 2 * PER_HOST


# -- where it may go -------------------------------------------------------------------------------


def resolver(*answers: Sequence[str]) -> tuple[list[str], Callable[[str, int], Any]]:
    """A name server that changes its mind, and the names it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return asked, resolve


def test_it_goes_to_the_address_that_was_checked(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    """A name that is bound anew after the check leads nowhere else: it is asked for once."""
    allowed = receiver()
    forbidden = receiver(host="127.0.0.2", port=allowed.port)
    job_id = finished(client, worker, f"http://rebinding.example:{allowed.port}/hook")
    asked, resolve = resolver(["127.0.0.1"], ["127.0.0.2"])
    with sending(settings, resolve=resolve):
        log_of(client, job_id, 1)
    assert asked == ["rebinding.example"]
    (received,) = allowed.received
    assert received.headers["host"] == f"rebinding.example:{allowed.port}"
    assert forbidden.received == []


def test_an_address_that_is_not_allowed_is_never_called(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    forbidden = receiver(host="127.0.0.2")
    allowed = receiver(host="127.0.0.1", port=forbidden.port)
    job_id = finished(client, worker, f"http://rebinding.example:{forbidden.port}/hook")
    _, resolve = resolver(["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1"])
    with sending(settings, resolve=resolve):
        log = log_of(client, job_id, 3)
    assert [entry["error"] for entry in log] == ["blocked_address", "blocked_address", None]
    assert forbidden.received == []
    assert len(allowed.received) == 1


def test_a_redirect_to_a_forbidden_address_is_not_followed(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    forbidden = receiver(host="127.0.0.2")

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", forbidden.url)
        handler.end_headers()

    hook = receiver(redirect)
    job_id = finished(client, worker, hook.url)
    with sending(settings):
        log = log_of(client, job_id, 3)
    assert {entry["error"] for entry in log} == {"redirect"}
    assert forbidden.received == []


def test_rules_that_became_stricter_hold_for_what_waits(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    plain = finished(client, worker, hook.url)
    stricter = settings.model_copy(update={"webhook_allow_http": False})
    with sending(stricter):
        (first, *_) = log_of(client, plain, 3)
    assert first["error"] == "blocked_url"
    assert hook.received == []


def test_proxies_of_the_environment_are_not_used(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook, proxy = receiver(), receiver()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    job_id = finished(client, worker, hook.url)
    with sending(settings):
        log_of(client, job_id, 1)
    assert proxy.received == []


def test_the_next_address_is_tried_where_one_cannot_be_reached(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    job_id = finished(client, worker, f"http://both.example:{hook.port}/hook")
    both = settings.model_copy(update={"webhook_networks": "127.0.0.0/8"})
    _, resolve = resolver(["127.0.0.3", "127.0.0.1"])  # nothing listens at the first
    with sending(both, resolve=resolve):
        (entry,) = log_of(client, job_id, 1)
    assert entry["status"] == 204


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, name: str, asked: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda _, server_name, __: asked.append(server_name)
    return context


def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_is_checked_against_the_name_not_the_address(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: Make,
    authority: trustme.CA,
) -> None:
    asked: list[str | None] = []
    hook = receiver(tls=server_side(authority, "hooks.example", asked))
    job_id = finished(client, worker, f"https://hooks.example:{hook.port}/hook")
    _, resolve = resolver(["127.0.0.1"])
    with sending(settings, resolve=resolve, tls=client_side(authority)):
        (entry,) = log_of(client, job_id, 1)
    assert (entry["status"], asked) == (204, ["hooks.example"])
    assert hook.received[0].headers["host"] == f"hooks.example:{hook.port}"


def test_a_certificate_of_another_name_is_refused(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: Make,
    authority: trustme.CA,
) -> None:
    hook = receiver(tls=server_side(authority, "127.0.0.1", []))
    job_id = finished(client, worker, f"https://hooks.example:{hook.port}/hook")
    _, resolve = resolver(["127.0.0.1"])
    with sending(settings, resolve=resolve, tls=client_side(authority)):
        log = log_of(client, job_id, 3)
    assert {entry["error"] for entry in log} == {"tls_failed"}
    assert hook.received == []


def test_a_certificate_of_an_unknown_authority_is_refused(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: Make,
    authority: trustme.CA,
) -> None:
    hook = receiver(tls=server_side(authority, "127.0.0.1", []))
    job_id = finished(client, worker, f"https://127.0.0.1:{hook.port}/hook")
    with sending(settings):
        log = log_of(client, job_id, 3)
    assert {entry["error"] for entry in log} == {"tls_failed"}
    assert hook.received == []


# -- what survives ---------------------------------------------------------------------------------


@pytest.fixture
def spawn(settings: Settings) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start real senders; all are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(**changes: object) -> "subprocess.Popen[str]":
        values = settings.model_dump(exclude_none=True) | changes
        values |= {"redis_url": changes.get("redis_url", settings.redis_url.get_secret_value())}  # type: ignore[union-attr]
        values |= {"webhook_secret": SECRET}
        variables = {f"KIRAZURI_{name.upper()}": str(value) for name, value in values.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "api.webhooks.sender"],
            env={"PATH": "", "PYTHONPATH": str(Path.cwd())} | variables,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_sender_that_is_killed_in_the_middle(
    client: httpx2.Client,
    worker: ManualWorker,
    receiver: Make,
    spawn: Callable[..., "subprocess.Popen[str]"],
) -> None:
    """The receiver has it already: it comes again, with the same id and the same bytes."""
    hook = receiver(silent, 204)
    job_id = finished(client, worker, hook.url)
    first = spawn(webhook_timeout_seconds=2)
    hook.wait_for(1, seconds=20)
    first.kill()
    spawn(webhook_timeout_seconds=2)
    before, after = hook.wait_for(2, seconds=20)
    assert before.headers["webhook-id"] == after.headers["webhook-id"]
    assert before.body == after.body
    assert verified(after)["data"]["id"] == job_id
    # The killed attempt is in no log and used none up.
    (entry,) = log_of(client, job_id, 1)
    assert (entry["attempt"], entry["status"]) == (1, 204)
    assert_outbox_is_empty(worker.redis)


def test_a_sender_that_is_asked_to_end_finishes_what_it_sends(
    client: httpx2.Client,
    worker: ManualWorker,
    receiver: Make,
    spawn: Callable[..., "subprocess.Popen[str]"],
) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.7)
        handler.send_response(204)
        handler.end_headers()

    hook = receiver(slow)
    job_id = finished(client, worker, f"{hook.url}/path-that-is-secret?key=secret")
    sender = spawn()
    hook.wait_for(1, seconds=20)
    sender.send_signal(signal.SIGTERM)
    _, log = sender.communicate(timeout=20)
    assert sender.returncode == 0, log
    (entry,) = log_of(client, job_id, 1)
    assert entry["status"] == 204
    assert f"job={job_id} event=webhook_delivered about=succeeded attempt=1" in log
    assert "secret" not in log


def test_two_senders_share_the_work(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    jobs = [finished(client, worker, hook.url) for _ in range(40)]
    with sending(settings), sending(settings):
        hook.wait_for(40)
        time.sleep(0.6)
    assert len(hook.received) == 40
    assert {received.message["data"]["id"] for received in hook.received} == set(jobs)
    assert_outbox_is_empty(worker.redis)


def test_a_sender_outlives_redis(
    settings: Settings, receiver: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "api.webhooks.sender")
    redis = redis_server.start(tmp_path / "redis")
    own = settings.model_dump() | {"redis_url": redis.url, "webhook_secret": SECRET}
    changed = Settings(_env_file=None, **own)
    running = ApiServer(changed)
    running.start()
    hook = receiver()
    try:
        with httpx2.Client(base_url=running.url) as client, Redis.from_url(redis.url) as connection:
            with sending(changed):
                redis.process.kill()
                redis.process.wait()
                time.sleep(1)
                redis = redis_server.start(tmp_path / "redis")
                job_id = finished(client, ManualWorker(connection, changed), hook.url)
                (entry,) = log_of(client, job_id, 1)
            assert entry["status"] == 204
    finally:
        running.stop()
        redis.stop()
    assert len([line for line in caplog.messages if "redis_away" in line]) == 1


def test_what_another_version_wrote_is_left_for_its_sender(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: Make
) -> None:
    hook = receiver()
    unreadable, good = finished(client, worker, hook.url), finished(client, worker, hook.url)
    (key,) = worker.redis.keys(f"kirazuri:delivery:{unreadable}-*")
    worker.redis.hset(key, "request", '{"prompt": "1girl", "field_of_the_future": 1}')
    with sending(settings):
        (entry, *_) = log_of(client, unreadable, 3)
        log_of(client, good, 1)
    assert entry["error"] == "unreadable"
    assert entry["next_at"] is not None
    assert len(hook.received) == 1


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("webhook", "pointer", "reason"),
    [
        ({"url": "https://10.0.0.1/"}, "/webhook/url", "not a public address"),
        ({"url": "http://127.0.0.2/"}, "/webhook/url", "not a public address"),
        ({"url": "http://0x7f000002/"}, "/webhook/url", "not a public address"),
        ({"url": "http://[::1]/"}, "/webhook/url", "not a public address"),
        ({"url": "ftp://example.org/"}, "/webhook/url", "begin with https:// or http://"),
        ({"url": "https://user:word@example.org/"}, "/webhook/url", "user name and password"),
        ({"url": "https://" + "a" * 2000}, "/webhook/url", "at most 2000"),
        ({"url": "https://exa\x00mple.org/"}, "/webhook/url", "not a URL"),
        ({"url": "https://\ud800.org/"}, "/webhook/url", "unicode"),
        ({"url": ""}, "/webhook/url", "at least 1"),
        ({"url": None}, "/webhook/url", "string"),
        ({}, "/webhook/url", "required"),
        ({"url": "https://a.b/", "events": []}, "/webhook/events", "at least 1"),
        ({"url": "https://a.b/", "events": ["progress"]}, "/webhook/events/0", "'started'"),
        ({"url": "https://a.b/", "events": ["failed"] * 5}, "/webhook/events", "at most 4"),
        ({"url": "https://a.b/", "events": "failed"}, "/webhook/events", "list"),
        ({"url": "https://a.b/", "secret": "x"}, "/webhook/secret", "unknown field"),
        ("https://a.b/", "/webhook", "object"),
    ],
)
def test_wrong_webhooks(client: httpx2.Client, webhook: Any, pointer: str, reason: str) -> None:
    body = json.dumps({"prompt": PROMPT, "webhook": webhook})
    answer = client.post("/generate", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    (error,) = read_problem(answer)["errors"]
    assert error["pointer"] == pointer
    assert reason in error["detail"]


def test_no_webhooks_without_a_secret(settings: Settings, redis_url: str) -> None:
    with (
        ApiServer(settings.model_copy(update={"webhook_secret": None})) as running,
        httpx2.Client(base_url=running.url) as client,
    ):
        body = {"prompt": PROMPT, "webhook": {"url": "https://example.org/"}}
        answer = client.post("/generate", json=body)
        assert answer.status_code == 422
        (error,) = read_problem(answer)["errors"]
        assert error["pointer"] == "/webhook"
        assert "KIRAZURI_WEBHOOK_SECRET" in error["detail"]
        job = client.post("/generate", json={"prompt": PROMPT, "webhook": None}).json()
        assert job["webhook"] is None
        assert client.get("/capabilities").json()["features"]["webhooks"] is False


def test_another_webhook_is_another_request(client: httpx2.Client) -> None:
    def post(url: str) -> httpx2.Response:
        body = {"prompt": PROMPT, "webhook": {"url": url}}
        return client.post("/generate", json=body, headers={"idempotency-key": "k"})

    first = post("https://a.example/")
    assert post("https://a.example/").json()["id"] == first.json()["id"]
    assert read_problem(post("https://b.example/"))["code"] == "idempotency_conflict"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("webhook_secret", "secret", "whsec_"),
        ("webhook_secret", "whsec_c2hvcnQ=", "24 to 64 bytes"),
        ("webhook_secret", f"{SECRET} whsec_{'-' * 32}", "24 to 64 bytes"),
        ("webhook_networks", "10.0.0.1/8", "host bits"),
        ("webhook_networks", "intranet", "IPv4 or IPv6"),
        ("webhook_retry_seconds", "5,soon", "could not convert"),
        ("webhook_retry_seconds", "-1", "negative"),
        ("webhook_retry_seconds", "600000", "518400"),
    ],
)
def test_settings_that_cannot_be(name: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings.model_validate({name: value})


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    delays = Settings(_env_file=None).webhook_retry_seconds
    hours = [int(part) / 3600 for part in delays.split(",")]
    assert hours == [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 10]


def test_a_sender_without_a_secret_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api.webhooks.sender"],
        env={"PATH": "", "PYTHONPATH": str(Path.cwd()), "KIRAZURI_REDIS_URL": "redis://nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "KIRAZURI_WEBHOOK_SECRET" in ended.stderr
