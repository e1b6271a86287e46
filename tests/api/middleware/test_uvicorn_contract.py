"""The private parts of uvicorn that our protocol relies on are those it was written for.

If this fails after an upgrade, read what has changed, compare it with "Why a subclass of uvicorn's
protocol?" in docs/decisions.md and with api/middleware/h11_protocol.py, and note the new digest.
"""

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tests.support.waiting import async_wait_until

DIGESTS: dict[Callable[..., Any], str] = {
    H11Protocol.__init__: "ad1ed8e837b2db8d",
    H11Protocol.connection_made: "6efb565ff3d36b91",
    H11Protocol.connection_lost: "dbb688fa2b386000",
    H11Protocol.eof_received: "5652627579a02369",
    H11Protocol.handle_events: "e63a9d1492e3efe7",
    H11Protocol.on_response_complete: "1fbb8f48c6a1afc4",
    H11Protocol._unset_keepalive_if_required: "00a6a4e47214e68e",
    H11Protocol.timeout_keep_alive_handler: "fcd7338529fe645e",
    H11Protocol.send_400_response: "56937b748fc59d92",
    H11Protocol.shutdown: "aaa6d607648bad7d",
    RequestResponseCycle.__init__: "d245415af679f8ad",
    RequestResponseCycle.run_asgi: "0f33f2449a444bc2",
    RequestResponseCycle.send: "76b4bcb0998bed0e",
    RequestResponseCycle.receive: "2d138e9944fff369",
    FlowControl: "126debcdaa894c83",
}


def test_the_code_that_we_override_or_call_is_the_known_one() -> None:
    changed = {
        part.__qualname__: digest
        for part, known in DIGESTS.items()
        if (digest := hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]) != known
    }
    assert changed == {}


def test_a_connection_holds_little_of_a_body() -> None:
    """The parser is held when uvicorn has buffered this much."""
    assert HIGH_WATER_LIMIT == 65_536


async def test_the_loop_reads_into_one_buffer_and_hands_it_over_at_once() -> None:
    """A shared buffer is safe only if nothing happens between get_buffer and buffer_updated."""
    log: list[str] = []

    class Protocol(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint: int) -> bytearray:
            asyncio.get_running_loop().call_soon(log.append, "another callback")
            log.append("get_buffer")
            return bytearray(100)

        def buffer_updated(self, nbytes: int) -> None:
            log.append("buffer_updated")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Protocol, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"a")
    await async_wait_until(lambda: "another callback" in log)
    assert log[:3] == ["get_buffer", "buffer_updated", "another callback"]
    writer.close()
    server.close()


def test_the_parser_can_be_held_between_two_events() -> None:
    """h11 keeps what it has not parsed, tells it, and goes on with the next call."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    assert isinstance(connection.next_event(), h11.Request)
    assert connection.trailing_data == (b"ab", False)
    connection.receive_data(b"cd")
    assert connection.trailing_data == (b"abcd", False)
    data = connection.next_event()
    assert isinstance(data, h11.Data)
    assert bytes(data.data) == b"abcd"
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.next_event() is h11.NEED_DATA
