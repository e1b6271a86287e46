"""The programs reach the loopback only, and the proxy breaks off one call."""

import http.client
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.environment import InstallError, run_installer
from tests.clients.holding_proxy import HoldingProxy
from tests.clients.programs import FOLDER
from tests.support.waiting import wait_until

NOWHERE = "192.0.2.1"
"""An address for documentation; nothing answers there."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815 - the name that the base class calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def near() -> Iterator[str]:
    """The address of a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


PYTHON = """
import checks, socket, urllib.request
for host in ("{far}", "example.invalid"):
    try:
        socket.create_connection((host, 80), 1)
    except checks.RefusedConnectionError:
        pass
with urllib.request.urlopen("http://{near}", timeout=60) as answer:
    print(answer.read().decode())
"""

NODE = """
for (const host of ["{far}", "example.invalid"]) {{
  await fetch(`http://${{host}}/`).then(() => {{ throw new Error("reached"); }}, () => {{}});
}}
console.log(await (await fetch("http://{near}")).text());
"""


def run(command: list[str], refused: Path) -> str:
    ran = subprocess.run(
        command,
        cwd=FOLDER / "python",
        env={"CHECKS_REFUSED": str(refused)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_python_programs_reach_this_machine_only(near: str, tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    code = PYTHON.format(far=NOWHERE, near=near)
    assert run([sys.executable, "-c", code], refused) == "ok\n"
    assert refused.read_text().split() == [NOWHERE, "example.invalid"]


def test_node_programs_reach_this_machine_only(near: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    refused = tmp_path / "refused"
    command = [node, "--import", (FOLDER / "node/loopback.mjs").as_uri(), "--input-type=module"]
    code = NODE.format(far=NOWHERE, near=near)
    assert run([*command, "-e", code], refused) == "ok\n"
    assert refused.read_text().split() == [NOWHERE, "example.invalid"]


def test_the_proxy_breaks_off_the_first_post(near: str) -> None:
    with HoldingProxy(f"http://{near}", lambda: True) as proxy:
        address = proxy.url.removeprefix("http://")

        def call(method: str, timeout: float = 60) -> bytes:
            connection = http.client.HTTPConnection(address, timeout=timeout)
            try:
                connection.request(method, "/", body=b"x")
                return connection.getresponse().read()
            finally:
                connection.close()

        assert call("GET") == b"ok"
        with pytest.raises(TimeoutError):
            call("POST", timeout=0.3)
        wait_until(lambda: proxy.posts == 1)  # it may have read less than the client sent
        assert call("POST") == b"ok"
        wait_until(lambda: proxy.posts == 2)


def test_a_failed_installation_names_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the network is unreachable')"]
    with pytest.raises(InstallError, match="the network is unreachable"):
        run_installer(command, tmp_path)
