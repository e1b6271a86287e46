"""The sender: retries, fairness between hosts, crashes, outages of Redis."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from api.webhooks import sender
from api.webhooks.sender import PER_HOST
from tests.support.api_calls import read_metrics, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.receiver import sending
from tests.support.waiting import wait_until
from tests.support.webhooks import (
    SECRET,
    MakeReceiver,
    delivery_log,
    fake_resolver,
    finish_job,
    seconds_of,
    verify,
    wait_for_attempts,
    wait_until_outbox_is_empty,
)
from worker.queue.layout import redis_keys
from worker.redis_io import server as redis_server
from worker.settings import Settings

Spawn = Callable[[], "subprocess.Popen[str]"]


def test_retries_after_the_configured_delays(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver(500, 429, 200)
    job_id = finish_job(client, worker, hook.url)
    with sending(settings.model_copy(update={"webhook_retry_seconds": "0.1,0.3"})):
        first, second, third = hook.wait_for(3)
        log = wait_for_attempts(client, job_id, 3)
    assert first.body == second.body == third.body
    assert len({received.headers["webhook-id"] for received in hook.received}) == 1
    assert verify(third)["data"]["id"] == job_id
    assert second.at - first.at >= 0.1
    assert third.at - second.at >= 0.3
    assert [(entry["attempt"], entry["status"], entry["error"]) for entry in log] == [
        (1, 500, "bad_status"),
        (2, 429, "bad_status"),
        (3, 200, None),
    ]
    for entry, delay in zip(log, (0.1, 0.3), strict=False):
        wait = seconds_of(entry["next_at"]) - seconds_of(entry["at"]) - entry["seconds"]
        assert delay <= wait + 0.002
    assert log[-1]["next_at"] is None
    numbers = read_metrics(client)
    assert numbers["kirazuri_webhook_attempts_total", "delivered"] == 1
    assert numbers["kirazuri_webhook_attempts_total", "retried"] == 2


def test_gives_up_after_the_last_retry(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver(503)
    job_id = finish_job(client, worker, hook.url)
    assert read_metrics(client)["kirazuri_webhooks_pending",] == 1
    wait_until(lambda: read_metrics(client)["kirazuri_webhooks_late_seconds",] >= 0.1)
    with sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    assert len(hook.received) == 3
    log = delivery_log(client, job_id)
    assert [bool(entry["next_at"]) for entry in log] == [True, True, False]
    numbers = read_metrics(client)
    assert numbers["kirazuri_webhook_attempts_total", "given_up"] == 1
    assert numbers["kirazuri_webhooks_pending",] == 0
    assert numbers["kirazuri_webhooks_late_seconds",] == 0


def test_status_410_ends_all_messages_of_the_job(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver(410)
    job_id = submit_job(client, webhook={"url": hook.url, "events": ["started", "succeeded"]})
    worker.claim(job_id)
    with sending(settings):
        (entry,) = wait_for_attempts(client, job_id, 1)
        worker.finish(job_id, b"picture")
        wait_until_outbox_is_empty(worker.redis)
    assert (entry["status"], entry["error"], entry["next_at"]) == (410, "bad_status", None)
    assert len(hook.received) == 1


def test_slow_receiver_does_not_block_others(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    lock, release = threading.Lock(), threading.Event()
    current, highest = 0, 0

    def answer_when_released(handler: BaseHTTPRequestHandler) -> None:
        nonlocal current, highest
        with lock:
            current += 1
            highest = max(highest, current)
        release.wait(60)
        with lock:
            current -= 1
        handler.send_response(204)
        handler.end_headers()

    slow, quick = receiver(answer_when_released), receiver()
    # Hosts differ by name: `localhost` is not 127.0.0.1.
    slow_url = slow.url.replace("127.0.0.1", "localhost")
    for _ in range(2 * PER_HOST):
        finish_job(client, worker, slow_url)
    finish_job(client, worker, quick.url)
    _, resolve = fake_resolver(["127.0.0.1"])
    with sending(settings, resolve=resolve):
        wait_until(lambda: current == PER_HOST)
        quick.wait_for(1)
        assert current == PER_HOST
        release.set()
        delayed = slow.wait_for(2 * PER_HOST)
    assert highest == PER_HOST
    assert len({received.headers["webhook-id"] for received in delayed}) == 2 * PER_HOST


@pytest.fixture
def spawn(settings: Settings) -> Iterator[Spawn]:
    """Starts sender processes; kills them after the test."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        values: dict[str, Any] = settings.model_dump(exclude_none=True)
        values["redis_url"] = settings.redis_url.get_secret_value()  # type: ignore[union-attr]
        values["webhook_secret"] = SECRET
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


def test_message_of_a_killed_sender_is_sent_again(
    client: httpx2.Client,
    worker: ManualWorker,
    settings: Settings,
    receiver: MakeReceiver,
    spawn: Spawn,
) -> None:
    """The receiver gets the message twice, with the same id and the same bytes."""
    is_over = threading.Event()
    hook = receiver(lambda _: is_over.wait(60), 204)
    job_id = finish_job(client, worker, hook.url)
    killed = spawn()
    hook.wait_for(1)
    killed.kill()
    killed.wait()
    is_over.set()
    redis: Any = worker.redis
    ((delivery, lease_end),) = redis.zrange(redis_keys.OUTBOX, 0, -1, withscores=True)
    assert lease_end > time.time()
    redis.zadd(redis_keys.OUTBOX, {delivery: time.time()})  # the lease ends
    with sending(settings):
        before, after = hook.wait_for(2)
        (entry,) = wait_for_attempts(client, job_id, 1)
    assert before.headers["webhook-id"] == after.headers["webhook-id"]
    assert before.body == after.body
    assert verify(after)["data"]["id"] == job_id
    # The killed attempt is not logged and does not count.
    assert (entry["attempt"], entry["status"]) == (1, 204)
    wait_until_outbox_is_empty(worker.redis)


def test_sigterm_lets_current_deliveries_finish(
    client: httpx2.Client, worker: ManualWorker, receiver: MakeReceiver, spawn: Spawn
) -> None:
    release = threading.Event()

    def answer_when_released(handler: BaseHTTPRequestHandler) -> None:
        release.wait(60)
        handler.send_response(204)
        handler.end_headers()

    hook = receiver(answer_when_released)
    job_id = finish_job(client, worker, f"{hook.url}/path-that-is-secret?key=secret")
    process = spawn()
    hook.wait_for(1)
    process.send_signal(signal.SIGTERM)
    assert process.stderr
    log = ""
    while "event=stopping deliveries=1" not in log:
        line = process.stderr.readline()
        assert line, log
        log += line
    release.set()
    log += process.communicate(timeout=60)[1]
    assert process.returncode == 0, log
    (entry,) = wait_for_attempts(client, job_id, 1)
    assert entry["status"] == 204
    assert f"job={job_id} event=webhook_delivered about=succeeded attempt=1" in log
    assert "secret" not in log


def test_two_senders_send_each_message_once(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    jobs = [finish_job(client, worker, hook.url) for _ in range(24)]
    with sending(settings), sending(settings):
        wait_until_outbox_is_empty(worker.redis)
    assert len(hook.received) == len(jobs)
    assert {received.message["data"]["id"] for received in hook.received} == set(jobs)


def test_survives_an_outage_of_redis(
    settings: Settings, receiver: MakeReceiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "api.webhooks.sender")
    redis = redis_server.start(tmp_path / "redis")
    changes = settings.model_dump() | {"redis_url": redis.url, "webhook_secret": SECRET}
    own = Settings(_env_file=None, **changes)
    hook = receiver()
    try:
        with (
            ApiServer(own) as server,
            httpx2.Client(base_url=server.url, timeout=60) as client,
            Redis.from_url(redis.url) as connection,
        ):
            with sending(own):
                redis.process.kill()
                redis.process.wait()
                wait_until(lambda: any("redis_away" in line for line in caplog.messages))
                redis = redis_server.start(tmp_path / "redis")
                job_id = finish_job(client, ManualWorker(connection, own), hook.url)
                (entry,) = wait_for_attempts(client, job_id, 1)
            assert entry["status"] == 204
    finally:
        redis.stop()
    assert len([line for line in caplog.messages if "redis_away" in line]) == 1


def test_unreadable_record_of_another_release_is_retried(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, receiver: MakeReceiver
) -> None:
    hook = receiver()
    unreadable, good = finish_job(client, worker, hook.url), finish_job(client, worker, hook.url)
    (key,) = worker.redis.keys(f"kirazuri:delivery:{unreadable}-*")
    worker.redis.hset(key, "request", '{"prompt": "1girl", "field_of_the_future": 1}')
    with sending(settings):
        entry = wait_for_attempts(client, unreadable, 3)[0]
        wait_for_attempts(client, good, 1)
    assert entry["error"] == "unreadable"
    assert entry["next_at"] is not None
    assert len(hook.received) == 1


def test_refuses_to_start_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sender"])
    monkeypatch.setenv("KIRAZURI_REDIS_URL", "redis://nowhere")
    monkeypatch.delenv("KIRAZURI_WEBHOOK_SECRET", raising=False)
    with pytest.raises(SystemExit) as ended:
        sender.main()
    assert ended.value.code == 2
    assert "KIRAZURI_WEBHOOK_SECRET" in capsys.readouterr().err
