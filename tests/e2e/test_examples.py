"""The programs of examples/ against the real service."""

import csv
import json
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import httpx2
import pytest
from websockets.sync.server import ServerConnection, serve

from tests.support.api_keys import bearer, make_key
from tests.support.api_server import ApiServer
from tests.support.cli import clean_environment
from tests.support.images import open_image
from tests.support.paths import ROOT
from tests.support.pictures import event_lines
from worker.redis_io.server import running_url
from worker.settings import Settings

pytestmark = pytest.mark.timeout(240)

EXAMPLES = ROOT / "examples"


def program(name: str, *arguments: object, **variables: str) -> "subprocess.Popen[str]":
    """Start an example."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        env=clean_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" not in output


# -- a batch over a table ------------------------------------------------------------------------


def batch(service: httpx2.Client, table: Path, folder: Path) -> tuple[int, str]:
    process = program("csv_batch.py", table, folder, KIRAZURI_URL=str(service.base_url))
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def jobs_of(service: httpx2.Client, words: str) -> list[dict[str, Any]]:
    listed = service.get("/jobs", params={"limit": 100}).json()["items"]
    return [job for job in listed if words in job["request"]["prompt"]]


def test_a_batch_goes_on_where_it_stopped(service: httpx2.Client, tmp_path: Path) -> None:
    table, folder = tmp_path / "prompts.csv", tmp_path / "pictures"
    rows = [
        {"name": "one", "prompt": "1girl, batch of pictures", "seed": "7", "steps": "3"},
        {"name": "two", "prompt": "1girl, batch of pictures", "seed": "8", "steps": "3"},
        {"name": "bad", "prompt": "1girl, batch of pictures", "seed": "9", "steps": "3000"},
        {"name": "three", "prompt": "1girl, batch of pictures", "seed": "", "steps": "3"},
    ]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    code, output = batch(service, table, folder)
    assert code == 1
    assert "one: seed 7\n" in output
    assert re.search(r"bad: .*/steps.*less than or equal to", output)
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["one.png", "three.png", "two.png"]
    assert len(jobs_of(service, "batch of pictures")) == 3
    before = (folder / "one.png").read_bytes()
    (folder / "two.png").unlink()  # as after a crash between the answer and the file
    (folder / "one.png").write_bytes(b"mine")
    code, output = batch(service, table, folder)
    assert "one: exists\n" in output
    assert "two: seed 8\n" in output
    assert open_image((folder / "two.png").read_bytes()).size == (128, 128)
    assert (folder / "one.png").read_bytes() == b"mine" != before
    assert len(jobs_of(service, "batch of pictures")) == 3, "the same call gives the same job"


def test_a_batch_is_stopped(service: httpx2.Client, tmp_path: Path) -> None:
    table, folder = tmp_path / "prompts.csv", tmp_path / "pictures"
    rows = "".join(f"{number},1girl,{number},3\n" for number in range(300))
    table.write_text(f"name,prompt,seed,steps\n{rows}")
    process = program("csv_batch.py", table, folder, KIRAZURI_URL=str(service.base_url))
    assert process.stdout
    assert process.stdout.readline() == "0: seed 0\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert 0 < len(list(folder.glob("*.png"))) < 300
    assert not list(folder.glob("*.part"))


def test_a_batch_keeps_its_key_from_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures in a bucket are redirects to another machine."""
    monkeypatch.setenv("KIRAZURI_API_KEY", "secret")
    batch = runpy.run_path(str(EXAMPLES / "csv_batch.py"))
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            self.send_response(307 if self.path == "/images/a.png" else 200)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/bucket")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor() as pool:
        pool.submit(server.serve_forever)
        batch["call"](f"http://127.0.0.1:{server.server_port}/images/a.png")
        server.shutdown()
    assert seen == [("/images/a.png", "Bearer secret"), ("/bucket", None)]


# -- a Discord bot ---------------------------------------------------------------------------------


class Discord(BaseHTTPRequestHandler):
    """The part of Discord's HTTP API that the bot calls."""

    gateway: ClassVar[str]
    calls: ClassVar["Queue[tuple[str, str, Any]]"]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.headers.get("Content-Type", "")
        said: Any = body
        if kind == "application/json":
            said = json.loads(body)
        elif kind.startswith("multipart/"):
            form = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            parts: Any = form.get_payload()
            said = [part.get_payload(decode=True) for part in parts]
        assert self.headers["Authorization"] == "Bot the-token"
        self.calls.put((self.command, self.path, said))
        answers = {
            "/gateway/bot": {"url": self.gateway},
            "/applications/@me": {"id": "77"},
        }
        text = json.dumps(answers.get(self.path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - the names of http.server

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def command(number: int, **options: object) -> str:
    """A user's /draw, as the gateway sends it."""
    interaction = {
        "id": f"{number}",
        "application_id": "77",
        "token": f"reply-{number}",
        "data": {"options": [{"name": name, "value": value} for name, value in options.items()]},
    }
    return json.dumps({"op": 0, "t": "INTERACTION_CREATE", "s": number, "d": interaction})


@dataclass(frozen=True)
class Gateway:
    """Sends a bot what a test puts into the queue; `url` is Discord's HTTP API."""

    url: str
    outgoing: "Queue[str]"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    outgoing: Queue[str] = Queue()

    def talk(socket: ServerConnection) -> None:
        socket.send(json.dumps({"op": 10, "s": None, "d": {"heartbeat_interval": 41_250}}))
        identity = json.loads(socket.recv())
        assert (identity["op"], identity["d"]["token"]) == (2, "the-token")
        while text := outgoing.get():
            socket.send(text)
            if '"op": 1' in text:
                beat = json.loads(socket.recv())
                Discord.calls.put(("BEAT", "", beat["d"]))

    with (
        serve(talk, "127.0.0.1", 0) as sockets,
        ThreadingHTTPServer(("127.0.0.1", 0), Discord) as rest,
        ThreadPoolExecutor() as pool,
    ):
        Discord.gateway = f"ws://127.0.0.1:{sockets.socket.getsockname()[1]}"
        Discord.calls = Queue()
        pool.submit(sockets.serve_forever)
        pool.submit(rest.serve_forever)
        yield Gateway(f"http://127.0.0.1:{rest.server_port}", outgoing)
        outgoing.put("")
        rest.shutdown()
        sockets.shutdown()


def test_a_bot_answers_commands_with_pictures(service: httpx2.Client, gateway: Gateway) -> None:
    bot = program(
        "discord_bot.py",
        DISCORD_API=gateway.url,
        DISCORD_TOKEN="the-token",
        KIRAZURI_URL=str(service.base_url),
    )
    calls = Discord.calls
    try:
        assert calls.get(timeout=60)[1] == "/applications/@me"
        method, path, said = calls.get(timeout=60)
        assert (method, path) == ("PUT", "/applications/77/commands")
        assert said[0]["name"] == "draw"
        assert calls.get(timeout=60)[1] == "/gateway/bot"

        gateway.outgoing.put(command(1, prompt="1girl, blue hair", seed=7))
        assert calls.get(timeout=60) == ("POST", "/interactions/1/reply-1/callback", {"type": 5})
        answer = "/webhooks/77/reply-1/messages/@original"
        shown = []
        while isinstance((call := calls.get(timeout=100))[2], dict):
            assert call[:2] == ("PATCH", answer)
            shown.append(call[2]["content"])
        assert all(re.fullmatch(r"\d+ %", text) for text in shown)
        assert shown
        text, picture = call[2]
        assert json.loads(text) == {"content": "seed 7"}
        assert open_image(picture).size == (128, 128)

        gateway.outgoing.put(command(2, prompt="1girl", seed=-5))
        assert calls.get(timeout=60)[1] == "/interactions/2/reply-2/callback"
        method, path, said = calls.get(timeout=60)
        assert said["content"].startswith("seed: Input should be greater than or equal to")

        gateway.outgoing.put(json.dumps({"op": 1, "s": None, "d": None}))
        assert calls.get(timeout=60) == ("BEAT", "", 2), "the number of the last message"

        gateway.outgoing.put(json.dumps({"op": 7, "s": None, "d": None}))
        assert calls.get(timeout=60)[1] == "/gateway/bot", "it connects again"
    finally:
        stop(bot)


# -- a web page ------------------------------------------------------------------------------------


@pytest.fixture
def protected(
    service: httpx2.Client, service_folder: Path, tmp_path: Path
) -> Iterator[tuple[ApiServer, str]]:
    """A second API of the shared service that needs a key, and the key."""
    secret, key = make_key("page")
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[page]\nhash = "{key.hash}"\n')
    server = ApiServer(
        Settings(
            _env_file=None,
            redis_url=running_url(service_folder / "redis"),
            data_dir=service_folder,
            keys_file=keys,
            auth="required",
            cors_origins="http://127.0.0.1:8080",
        )
    )
    server.start()
    yield server, secret
    server.stop()


def test_a_page_shows_progress_and_pictures_by_signed_links(
    protected: tuple[ApiServer, str],
) -> None:
    server, secret = protected
    process = program("web_page.py", 0, KIRAZURI_URL=server.url, KIRAZURI_API_KEY=secret)
    try:
        assert process.stdout
        address = process.stdout.readline().strip()
        with httpx2.Client(base_url=address, timeout=60, trust_env=False) as page:
            html = page.get("/").text
            assert "new EventSource(job.events)" in html
            assert secret not in html
            job = page.post("/draw", json={"prompt": "1girl, blue hair"}).json()
            assert secret not in json.dumps(job)
            origin = {"Origin": "http://127.0.0.1:8080"}
            with httpx2.stream("GET", job["events"], headers=origin, timeout=100) as events:
                assert events.headers["access-control-allow-origin"] == origin["Origin"]
                names = [line[7:] for line in event_lines(events) if line.startswith("event: ")]
            assert names[0] == "queued"
            assert "progress" in names
            assert names[-1] == "succeeded"
            (url,) = page.post(f"/links/{job['id']}", json={}).json()["images"]
            assert open_image(httpx2.get(url, timeout=60).content).size == (128, 128)
            assert httpx2.get(url.partition("?")[0], timeout=60).status_code == 401
            assert httpx2.get(f"{server.url}/jobs/{job['id']}", timeout=60).status_code == 401
            assert httpx2.get(
                f"{server.url}/jobs/{job['id']}", headers=bearer(secret), timeout=60
            ).is_success
            for path, body, status in (
                ("/draw", b"{}", 400),
                ("/draw", b"[", 400),
                ("/draw", json.dumps({"prompt": "a" * 10_001}).encode(), 422),
                ("/links/unknown", b"", 404),
                ("/links/..%2Fjobs", b"", 404),
                ("/draw", b"x" * 30_000, 413),
                ("/other", b"", 404),
            ):
                answer = page.post(path, content=body)
                assert answer.status_code == status, (path, body[:20])
                assert answer.json()["detail"]
    finally:
        stop(process)
