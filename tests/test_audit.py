"""The audit with a database that answers, one that knows nothing, and an unreachable one."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.tools.audit import judge

WEAK = {
    "id": "GHSA-0000-test",
    "summary": "a weakness",
    "affected": [{
        "package": {"name": "leftpad", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
    }],
}  # fmt: skip


@contextmanager
def database(weaknesses: dict[str, Any]) -> Iterator[str]:
    """A vulnerability database with the API of OSV; its URL."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            name = json.loads(self.rfile.read(size))["package"]["name"]
            found = [weaknesses[name]] if name in weaknesses else []
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def audit(tmp_path: Path, url: str, *options: str) -> tuple[int, str]:
    pins = tmp_path / "pins.txt"
    pins.write_text("leftpad==1.0\nrightpad==2.0 ; python_version >= '3'\n")
    command = [sys.executable, "-m", "tests.tools.audit", "--pins", str(pins), *options]
    command += ["-s", "osv", "--osv-url", url, "--timeout", "60"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout


def test_a_vulnerability_fails(tmp_path: Path) -> None:
    with database({"leftpad": WEAK}) as url:
        code, said = audit(tmp_path, url)
    assert code == 1
    assert "leftpad 1.0: GHSA-0000-test, fixed in 1.1" in said
    assert "2 of 2 packages audited, 1 vulnerabilities" in said


def test_nothing_known_passes(tmp_path: Path) -> None:
    with database({}) as url:
        code, said = audit(tmp_path, url, "--strict")
    assert (code, said.strip()) == (0, "2 of 2 packages audited, 0 vulnerabilities")


@pytest.mark.parametrize("is_strict", [False, True])
def test_an_unreachable_database_is_reported_and_fails_only_if_strict(
    tmp_path: Path, *, is_strict: bool
) -> None:
    code, said = audit(tmp_path, f"http://127.0.0.1:{free_port()}/", *["--strict"] * is_strict)
    assert code == int(is_strict)
    assert said.startswith("NOT AUDITED: ")


def test_a_database_that_knows_no_package_does_not_count() -> None:
    """Package indexes without vulnerability data answer so; pip-audit calls that success."""
    unknown = {"name": "leftpad", "skip_reason": "Dependency not found on PyPI: leftpad (1.0)"}
    code, lines = judge([unknown], "")
    assert code is None
    assert lines[0].startswith("NOT AUDITED: the database knows none of 1 packages")


def test_one_package_that_is_unknown_fails() -> None:
    unknown = {"name": "leftpad", "skip_reason": "Dependency not found on PyPI: leftpad (1.0)"}
    known = {"name": "rightpad", "version": "2.0", "vulns": []}
    code, lines = judge([unknown, known], "")
    assert code == 1
    assert lines[-1] == "1 of 2 packages audited, 0 vulnerabilities"
