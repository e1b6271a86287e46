"""Runs the API as a separate process and reads event streams over raw sockets."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from tests.support.cli import clean_environment
from worker.settings import Settings, redis_dsn

_START_SECONDS = 60.0


class ApiProcess:
    """uvicorn on a socket that survives a restart of the process, as with a supervisor.

    The kernel buffers little per connection, so that a client that stops reading blocks at once.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(4096)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = clean_environment(
            KIRAZURI_REDIS_URL=redis_dsn(settings), KIRAZURI_DATA_DIR=str(settings.data_dir)
        )
        self.client = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory"]
        options = ["--fd", str(self._socket.fileno()), "--log-level", "warning"]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [*command, *options, "--timeout-graceful-shutdown", "1"],
                env=self._environment,
                pass_fds=[self._socket.fileno()],
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_live():
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return process

    def _is_live(self) -> bool:
        try:
            return self.client.get("/livez", timeout=1).status_code == 200
        except httpx2.HTTPError:
            return False

    def restart(self) -> None:
        """Kill the process and start a new one."""
        self.process.kill()
        self.process.wait(60)
        self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.client.close()
            self._socket.close()

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(listed.stdout) * 1024

    def streams(self) -> int:
        """Number of open event streams."""
        text = self.client.get("/metrics").text
        match = re.search(r"^kirazuri_event_streams (\S+)$", text, re.MULTILINE)
        assert match
        return int(float(match[1]))

    def listen(self, job_id: str, *, receive_bytes: int, query: str = "") -> socket.socket:
        """A socket that has requested a job's events and has read nothing yet."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        listener.settimeout(60)
        listener.connect(("127.0.0.1", self.port))
        path = f"/jobs/{job_id}/events{query}"
        listener.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return listener


def read_to_end(listener: socket.socket) -> str:
    """The rest of a stream without HTTP's chunk framing."""
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        part = listener.recv(65_536)
        assert part, "the stream broke"
        received += part
    return unframed(bytes(received))


def unframed(answer: bytes) -> str:
    """The body of a chunked response, as far as received."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = bytearray()
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size or b"0", 16)
        body += rest[:length]
        rest = rest[length + 2 :]
    return body.decode()
