"""Sends requests that wait for their responses, and whose connections a test can drop."""

import http.client
import json
import socket
import threading
from contextlib import suppress
from typing import Any

import httpx2


class PendingCall:
    """A POST request that waits for its response in a thread."""

    def __init__(self, url: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        headers = {"content-type": "application/json"} | headers
        self._connection.request("POST", path, json.dumps(body), headers)
        self._socket = self._connection.sock
        self._response: http.client.HTTPResponse | None = None
        self._body = b""
        self.is_complete = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            self._response = self._connection.getresponse()
            self._body = self._response.read()
            self.is_complete = True

    def disconnect(self) -> None:
        """Drop the connection."""
        if not self.is_complete:  # a stream may have begun
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._connection.close()

    def response(self) -> httpx2.Response:
        """Wait for the response."""
        self._thread.join(60)
        assert self._response is not None
        headers = dict(self._response.headers)
        return httpx2.Response(self._response.status, headers=headers, content=self._body)
