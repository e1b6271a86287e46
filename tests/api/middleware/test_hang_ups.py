"""Clients that hang up while they send a body: nothing that is logged or counted."""

import socket
import struct
from collections.abc import Iterator

import httpx2
import pytest

from tests.support.api_server import ApiServer
from tests.support.cases import check_all

STARTS = {
    "multipart/form-data": b"--x\r\nContent-Disposition: form-data; "
    b'name="image"; filename="a"\r\n\r\n',
    "application/json": b'{"prompt": "1girl',
    "application/octet-stream": b"\x89PNG",
}
"""The first bytes of a body by media type."""


def framed(start: bytes) -> Iterator[bytes]:
    """The rest of the head, and the first bytes of a body in each way to send it."""
    yield b"Content-Length: 5000\r\n\r\n"
    yield b"Content-Length: 5000\r\n\r\n" + start
    yield b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(start), start)


RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which close() resets the connection."""


def reading_operations(server: ApiServer) -> Iterator[tuple[str, str]]:
    """Path and media type of every operation that reads a body."""
    for path, operations in server.app.openapi()["paths"].items():
        for operation in operations.values():
            for media_type in operation.get("requestBody", {}).get("content", {}):
                yield path, media_type


def counted(client: httpx2.Client) -> list[str]:
    """The counters of requests and problems, without those of this call."""
    text = client.get("/metrics").text
    return [
        line
        for line in text.splitlines()
        if line.startswith(("kirazuri_http_problems", "kirazuri_http_request_seconds_count"))
        and "/metrics" not in line
    ]


def test_hanging_up_is_not_our_error(
    server: ApiServer, client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(server.url.rpartition(":")[2])
    server.wait_for_requests(0)
    before = counted(client)

    def check(path: str, media_type: str, rest: bytes, is_reset: bool) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}; boundary=x\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head.encode() + rest)
            server.wait_for_requests(1)
            if is_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        server.wait_for_requests(0)

    operations = [*reading_operations(server), ("/mcp", "application/json")]
    assert len(operations) >= 9
    check_all(
        check,
        (
            (path, media_type, rest, is_reset)
            for path, media_type in operations
            for rest in framed(STARTS[media_type])
            for is_reset in (False, True)
        ),
    )
    assert counted(client) == before
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
