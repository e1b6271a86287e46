"""A web page that draws pictures: the server has the key, browsers get signed links.

    KIRAZURI_API_KEY=… python examples/web_page.py        # http://127.0.0.1:8080

A browser cannot keep a key secret, and `EventSource` and `<img>` send no headers. So the page asks
this server, which submits the job with its key and passes on signed links: each opens the events
or a picture of this one job, for an hour. Progress and pictures come directly from the service,
which must allow the page's origin: KIRAZURI_CORS_ORIGINS=http://127.0.0.1:8080
"""

import json
import os
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = os.environ.get("KIRAZURI_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("KIRAZURI_API_KEY", "")
PAGE = Path(__file__).with_suffix(".html")
MAX_BODY = 20_000


def call(path: str, body: dict[str, Any] | None = None) -> Any:
    """Post to the service with the key; the JSON of its response."""
    headers = {"Content-Type": "application/json"}
    if KEY:
        headers["Authorization"] = f"Bearer {KEY}"
    data = b"" if body is None else json.dumps(body).encode()
    with urlopen(Request(URL.rstrip("/") + path, data, headers), timeout=30) as response:
        return json.load(response)


class Handler(BaseHTTPRequestHandler):
    """The page, and the two calls that its script makes."""

    def do_GET(self) -> None:
        """Send the page."""
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(HTTPStatus.OK, PAGE.read_bytes(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """`/draw` submits a prompt, `/links/ID` signs the links of a job that the page knows."""
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_BODY:
                self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the prompt is too long")
            elif self.path == "/draw":
                prompt = json.loads(self.rfile.read(length))["prompt"]
                job = call("/generate", {"prompt": prompt})
                self._send_links(job["id"])
            elif self.path.startswith("/links/"):
                self._send_links(self.path.removeprefix("/links/"))
            else:
                self._fail(HTTPStatus.NOT_FOUND, "not found")
        except HTTPError as error:
            with error:  # the problem of the service says which field is wrong
                self._send(HTTPStatus(error.code), error.read())
        except OSError:
            self._fail(HTTPStatus.BAD_GATEWAY, "the service does not answer")
        except (ValueError, KeyError, TypeError):
            self._fail(HTTPStatus.BAD_REQUEST, "expected JSON with a prompt")

    def _send_links(self, job_id: str) -> None:
        if not job_id.isalnum():
            self._fail(HTTPStatus.NOT_FOUND, "not found")
            return
        links = call(f"/jobs/{job_id}/links")
        self._send(HTTPStatus.OK, json.dumps({"id": job_id, **links}).encode())

    def _fail(self, status: HTTPStatus, detail: str) -> None:
        self._send(status, json.dumps({"detail": detail}).encode())

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until Ctrl-C, at the port of the first argument or 8080."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
