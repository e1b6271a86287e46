"""The start of the API process, and HEAD for every GET."""

import signal
import socket
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from api.server import main
from tests.support.api_calls import submit_job
from tests.support.api_process import ApiProcess
from tests.support.api_server import ApiServer
from tests.support.cases import check_all
from tests.support.cli import Running
from tests.support.manual_worker import ManualWorker
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.settings import Settings, redis_dsn


def test_it_starts_without_redis_and_logs_the_reason(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    url = SecretStr(f"redis://:secret@{place}")
    api = ApiProcess(Settings(data_dir=tmp_path, redis_url=url), tmp_path / "log")
    try:
        wait_until(lambda: "event=redis_away reason=" in api.log.read_text())
        assert f"connecting to {place}" in api.log.read_text()
        assert "secret" not in api.log.read_text()
    finally:
        api.stop()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TAGS_FILE", "/none/such", "error: KIRAZURI_TAGS_FILE: tag list /none/such: No such file"),
        ("POLICY_FILE", "/none/such", "error: KIRAZURI_POLICY_FILE: policy file /none/such: "),
        ("KEYS_FILE", "/none/such", "error: KIRAZURI_KEYS_FILE: /none/such: "),
        ("CARD", "none_such", "error: KIRAZURI_CARD: no card named 'none_such'"),
        ("MAX_RATING", "all", "error: KIRAZURI_MAX_RATING is 'all', but it must be one of safe, "),
        ("C2PA_TRUST", "/none/such", "KIRAZURI_C2PA_TRUST: /none/such cannot be read"),
        ("DATA_DIR", "/proc/nope", "error: KIRAZURI_DATA_DIR: /proc/nope cannot be made a folder"),
        ("REDIS_URL", "redis://:se/cret@127.0.0.1", "KIRAZURI_REDIS_URL cannot be read"),
        ("REDIS_URL", "", "KIRAZURI_REDIS_URL is not set"),
    ],
)
def test_wrong_settings_end_the_start_with_a_message(
    variable: str,
    value: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KIRAZURI_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv(f"KIRAZURI_{variable}", value)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "cret" not in shown


# -- HEAD ----------------------------------------------------------------------------------------

FILLED = {
    "name": "",
    "job_id": "",
    "code": "internal",
    "model": "kirazuri-tiny",
    "version": "0",
    "path": "app.js",
}
"""A value for each path parameter of a GET route; images and jobs are filled by the test."""

CHANGING = {"/metrics", "/readyz"}
"""Paths whose bodies are never twice the same."""


def raw_answer(server: ApiServer, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and everything that the server sends after them."""
    place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(place, timeout=60) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    start, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = start.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def test_head_is_answered_wherever_get_is(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker
) -> None:
    ended, waiting = submit_job(client), submit_job(client)
    worker.claim(ended)
    (image,) = worker.finish(ended, b"\x89PNG not really")

    def check(path: str) -> None:
        get_status, get_headers, body = raw_answer(server, "GET", path)
        status, headers, rest = raw_answer(server, "HEAD", path)
        assert rest == b""
        assert status == get_status != 405
        kept = ("content-type", "location", "etag", "cache-control")
        assert [headers.get(name) for name in kept] == [get_headers.get(name) for name in kept]
        if path in CHANGING:
            assert int(headers["content-length"]) > 0
        elif "content-length" in get_headers:
            assert headers["content-length"] == get_headers["content-length"] == str(len(body))

    filled = FILLED | {"job_id": ended, "name": image.name}
    paths = {
        f"{route.path}".replace(":path}", "}").format(**filled)
        for route in iter_route_contexts(server.app.routes)
        if "GET" in (route.methods or ())
    }
    assert len(paths) > 30
    assert {"/", "/docs", "/openapi.json", "/v1/models", "/sdapi/v1/options"} <= paths
    check_all(check, [*paths, "/static-offline-docs/favicon.png", "/jobs/nothing", "/nothing"])
    status, headers, rest = raw_answer(server, "HEAD", f"/jobs/{waiting}/events")
    assert (status, headers["content-type"], rest) == (200, "text/event-stream; charset=utf-8", b"")
    assert raw_answer(server, "HEAD", "/generate")[0] == 405


def test_head_of_a_stream_cancels_nothing(
    server: ApiServer, client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    raw_answer(server, "HEAD", f"/jobs/{job_id}/events?cancel_on_disconnect=true")
    assert client.get("/livez").status_code == 200
    assert worker.step(job_id, 1, 20) == "ok"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_ends_it_without_a_traceback(
    number: signal.Signals, code: int, settings: Settings, tmp_path: Path
) -> None:
    place = {"KIRAZURI_REDIS_URL": redis_dsn(settings), "KIRAZURI_DATA_DIR": str(tmp_path)}
    arguments = ("--port", str(free_port()))
    api = Running(*arguments, folder=tmp_path, module="api", **place)
    api.wait_for("Uvicorn running on")
    assert api.end(number) == code
    assert api.output().splitlines()[-1].endswith(f"Finished server process [{api.process.pid}]")
