"""Clients that leave before their answer, and servers that stop before it."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import httpx2
import pytest

from tests.support.api_server import ApiServer
from tests.support.cli import clean_environment
from tests.support.manual_worker import ManualWorker
from tests.support.mcp_clients import ACCEPT, tool_call
from tests.support.pending_call import PendingCall
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.settings import Settings, redis_dsn

VERSIONS = ("2025-11-25", "2026-07-28")
LEAVING = {"/mcp": "queued", "/mcp?cancel_on_disconnect=true": "cancelled"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_wait_seconds": 60})


@pytest.fixture
def open_waits(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The calls that wait for the end of a job now."""
    waiting: set[int] = set()
    pages = JobQueue.event_pages

    async def counted(*given: object, **named: object):  # type: ignore[no-untyped-def]
        waiting.add(id(given))
        try:
            async for page in pages(*given, **named):  # type: ignore[arg-type]
                yield page
        finally:
            waiting.discard(id(given))

    monkeypatch.setattr(JobQueue, "event_pages", counted)
    return waiting


def _call(url: str, path: str, version: str) -> PendingCall:
    body = tool_call("generate_image", prompt="1girl, smile")
    headers = {**ACCEPT, "MCP-Protocol-Version": version}
    if version == "2026-07-28":
        prefix = "io.modelcontextprotocol/"
        body["params"]["_meta"] = {
            f"{prefix}protocolVersion": version,
            f"{prefix}clientCapabilities": {},
        }
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "generate_image"}
    return PendingCall(url, path, body, headers)


def _status(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", LEAVING)
def test_the_job_of_a_client_that_left_follows_the_rule(
    server: ApiServer,
    client: httpx2.Client,
    worker: ManualWorker,
    open_waits: set[int],
    path: str,
    version: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiting = _call(server.url, path, version)
    wait_until(worker.queued_ids)
    wait_until(lambda: open_waits)
    (job_id,) = worker.queued_ids()
    waiting.disconnect()
    wait_until(lambda: not open_waits)
    wait_until(lambda: _status(client, job_id) == LEAVING[path])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    if LEAVING[path] == "queued":  # notifications for the client that left harm nothing
        worker.claim(job_id)
        worker.step(job_id, 1, 4)
        worker.finish(job_id, b"no picture")
        assert _status(client, job_id) == "succeeded"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_stops_looks_not_like_a_client_that_left(
    settings: Settings,
    client: httpx2.Client,
    worker: ManualWorker,
    open_waits: set[int],
    version: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "api")
    with ApiServer(settings) as stopping:
        waiting = _call(stopping.url, "/mcp?cancel_on_disconnect=true", version)
        wait_until(worker.queued_ids)
        wait_until(lambda: open_waits)
    (job_id,) = worker.queued_ids()
    assert _status(client, job_id) == "queued"
    assert "event=accepted" in caplog.text
    assert "event=client_left" not in caplog.text
    answer = waiting.response()
    assert waiting.is_complete, "a stream must not be cut off"
    # Without a stream it ends as every other request that waits.
    assert (answer.status_code, version) in ((200, VERSIONS[0]), (500, VERSIONS[1]))
    waiting.disconnect()


def test_a_call_may_finish_while_the_server_stops(
    settings: Settings, client: httpx2.Client, worker: ManualWorker
) -> None:
    """Its library would end the stream within half a second."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = clean_environment(
        KIRAZURI_REDIS_URL=redis_dsn(settings), KIRAZURI_DATA_DIR=str(settings.data_dir)
    )
    arguments = ["-m", "api", "--port", str(port), "--stop-seconds", "120"]
    with subprocess.Popen([sys.executable, *arguments], env=environment) as process:
        try:
            wait_until(lambda: _is_open(port))
            waiting = _call(url, "/mcp", VERSIONS[0])
            wait_until(worker.queued_ids)
            (job_id,) = worker.queued_ids()
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _is_open(port))
            time.sleep(1)
            worker.claim(job_id)
            worker.finish(job_id, b"no picture")
            answer = waiting.response()
            waiting.disconnect()
        finally:
            process.kill()
    assert f"Job {job_id} succeeded" in answer.text


def _is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_leaves_during_the_submission(
    server: ApiServer,
    client: httpx2.Client,
    worker: ManualWorker,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
) -> None:
    """The job is accepted whole, and then cancelled as the client asked for."""
    has_begun, may_go_on = threading.Event(), threading.Event()
    admit = JobQueue.admit

    async def slow(*given: object, **named: object) -> Job:
        has_begun.set()
        await asyncio.to_thread(may_go_on.wait, 60)
        return await admit(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(JobQueue, "admit", slow)
    waiting = _call(server.url, "/mcp?cancel_on_disconnect=true", version)
    assert has_begun.wait(60)
    waiting.disconnect()
    assert client.get("/livez").status_code == 200
    may_go_on.set()
    wait_until(lambda: client.get("/jobs").json()["items"])
    (job,) = client.get("/jobs").json()["items"]
    wait_until(lambda: _status(client, job["id"]) == "cancelled")
    assert worker.queued_ids() == []
