"""A file hub on 127.0.0.1 for the real client of huggingface_hub."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """The files of the hub, by "repo/path", and the requests that it received.

    `breaks_after` cuts downloads after so many bytes; from then on the hub is unavailable.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    breaks_after: int | None = None
    is_unavailable: bool = False
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.is_unavailable:
            self._send(503, b"", {})
        elif path.startswith("api/models/"):
            self._tree(path.removeprefix("api/models/"))
        else:
            self._file(path.replace("/resolve/main/", "/"), has_body=has_body)

    def _tree(self, path: str) -> None:
        repo, _, folder = path.partition("/tree/main/")
        entries = [
            {
                "type": "file",
                "oid": "0" * 40,
                "size": len(content),
                "path": name.removeprefix(f"{repo}/"),
            }
            for name, content in self.hub.files.items()
            if name.startswith(f"{repo}/{folder}/")
        ]
        kind = {"Content-Type": "application/json"}
        self._send(200 if entries else 404, json.dumps(entries).encode(), kind)

    def _file(self, name: str, *, has_body: bool) -> None:
        if name not in self.hub.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = self.hub.files[name]
        is_large = name.endswith(".safetensors")
        digest = hashlib.sha256(content).hexdigest()
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{digest if is_large else digest[:40]}"',
            "Accept-Ranges": "bytes",
        }
        first, status = 0, 200
        if self.headers.get("Range"):
            first, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if has_body and self.hub.breaks_after is not None and is_large:
            self.hub.is_unavailable = True
            self._send(status, content[first:], headers, stop=self.hub.breaks_after)
        else:
            self._send(status, content[first:], headers, has_body=has_body)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        stop: int | None = None,
        has_body: bool = True,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body and self.command == "GET":
            self.wfile.write(body[:stop])
        if stop is not None:
            self.close_connection = True


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve until the block ends."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
