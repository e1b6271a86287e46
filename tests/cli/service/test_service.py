"""Ports, URLs, variables of child processes, restarts, and the end of children."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from cli.service.child import ChildProcess
from cli.service.embedded_redis import StartError
from cli.service.service import _not_ready, environment, find_port, local_url
from tests.support.scripted_transport import ScriptedTransport
from tests.support.waiting import wait_until
from worker.settings import Settings


def test_a_free_port_is_found() -> None:
    assert 0 < find_port("127.0.0.1", 0) < 65536


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            find_port("127.0.0.1", port)
    reason = "Address already in use"
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{port} ({reason}); try another --port"


@pytest.mark.parametrize("host", ["192.0.2.1", "name.invalid"])
def test_a_foreign_host_is_refused(host: str) -> None:
    with pytest.raises(StartError, match=rf"^cannot listen on {host}:0 \([^()]+\); .* --host$"):
        find_port(host, 0)


def test_an_api_that_does_not_listen_yet_is_starting() -> None:
    transport = ScriptedTransport(httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"))
    with httpx2.Client(base_url="http://127.0.0.1:9", transport=transport) as client:
        assert [_not_ready(client), _not_ready(client)] == [
            "the API is starting",
            "the API does not answer (slow)",
        ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_a_wildcard_address_is_reached_by_loopback(host: str, expected: str) -> None:
    assert local_url(host, 80) == expected


def test_children_get_the_settings_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=SecretStr("redis://u:p@h/0"), max_running=3)
    for name, value in environment(settings).items():
        if name.startswith("KIRAZURI_"):
            monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_a_child_is_restarted_after_growing_pauses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "starts"
    code = f"open({str(mark)!r}, 'a').write('x'); print('about to crash'); raise SystemExit(3)"
    child = ChildProcess("crasher", [sys.executable, "-c", code], dict(os.environ))  # noqa: TID251

    def has_started(times: int) -> bool:
        child.restart_if_ended()
        return mark.exists() and len(mark.read_text()) == times

    wait_until(lambda: has_started(2))
    wait_until(lambda: child.exit_code() is not None)
    child.restart_if_ended()
    assert child.exit_code() == 3
    assert child.last_line() == "about to crash"
    shown = capfd.readouterr().err
    assert "crasher  | about to crash" in shown
    assert "crasher ended with code 3; it starts again in 1 s" in shown
    assert "crasher ended with code 3; it starts again in 2 s" in shown


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(60)"
    child = ChildProcess("deaf", [sys.executable, "-u", "-c", code], dict(os.environ))  # noqa: TID251
    wait_until(lambda: bool(child._last_lines))
    child.terminate()
    child.wait(0.2)
    assert child.exit_code() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_children_die_with_a_parent_that_is_killed() -> None:
    code = textwrap.dedent(
        """
        import os, sys, time
        from cli.service.child import ChildProcess
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = ChildProcess("sleeper", command, os.environ)
        print(child._process.pid, flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        sleeper = int(parent.stdout.readline())
        wait_until(lambda: "die_with_parent" not in _command(sleeper))
        parent.kill()
    wait_until(lambda: not _command(sleeper))


def _command(pid: int) -> str:
    """The command line of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
