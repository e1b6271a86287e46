"""What refused and large requests cost, in steps of the interpreter, and what they leave behind."""

import asyncio
import gc
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import FrameType
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from api.main import create_app
from api.middleware.h11_protocol import LimitedH11Protocol
from api.middleware.parse_turns import EVENTS_AT_ONCE
from api.server import Server, server_config
from tests.support.paths import ROOT
from worker.settings import Settings

REFUSED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "different lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Content-Length: 6\r\n\r\n",
}


GOOD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

END = b"\r\n\r\n"

REFUSED_BY_HEAD = {
    "unknown path": (b"GET /nothing", b"404"),
    "wrong method": (b"PUT /livez", b"405"),
    "unknown method": (b"BREW /livez", b"405"),
    "foreign page": (b"POST /generate", b"403"),
    "wrong host": (b"GET /jobs", b"421"),
}

LIBRARIES = ("/api/", "/h11/", "/uvicorn/", "/starlette/", "/fastapi/", "/pydantic/")
MOST_CALLS = 160
"""Python functions of these that one refusal may call. A request to `/livez` calls several times
as many."""

TESTS = str(ROOT / "tests")
REPEATED = 20


def config_of(app: Any) -> uvicorn.Config:
    return server_config(app, Settings(), host="127.0.0.1", port=0)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """Accept connections in this loop; the port."""
    config, state = config_of(app), ServerState()
    config.load()
    make: Any = config.http_protocol_class

    def protocol() -> asyncio.Protocol:
        made: asyncio.Protocol = make(config=config, server_state=state, app_state={})
        return made

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answer_to(port: int, request: bytes) -> bytes:
    """The whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def pending_timers() -> list[asyncio.TimerHandle]:
    # `isinstance` would ask proxies of other libraries for their class.
    found = [one for one in gc.get_objects() if type(one) is asyncio.TimerHandle]
    return [one for one in found if not one.cancelled()]


async def calls_for(port: int, request: bytes) -> float:
    """How many Python functions of the service and its libraries one such request calls."""
    calls = 0

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        name = frame.f_code.co_filename
        is_own = name.startswith(TESTS)
        calls += event == "call" and not is_own and any(one in name for one in LIBRARIES)

    sys.setprofile(note)  # this thread, which is the loop's
    try:
        for _ in range(REPEATED):
            await asyncio.to_thread(answer_to, port, request)
    finally:
        sys.setprofile(None)
    assert calls
    return calls / REPEATED


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_no_http_is_refused_at_little_cost(kind: str) -> None:
    async with serving(FastAPI()) as port:
        answer = await asyncio.to_thread(answer_to, port, REFUSED[kind])
        calls = await calls_for(port, REFUSED[kind])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"connection: close" in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert json.loads(body)["code"] == "not_http"
    assert calls <= MOST_CALLS


async def test_a_refused_head_costs_about_as_little_as_a_probe() -> None:
    def request(operation: bytes, kind: str) -> bytes:
        host = b"b" if kind == "wrong host" else b"a"
        page = b"Origin: https://b\r\n" if kind == "foreign page" else b""
        return operation + b" HTTP/1.1\r\nConnection: close\r\n" + page + b"Host: " + host + END

    async with serving(create_app(Settings(auth="off", allowed_hosts="a"))) as port:
        probe = request(b"GET /livez", "probe")
        assert b" 200 " in await asyncio.to_thread(answer_to, port, probe)
        allowed = 2 * await calls_for(port, probe)
        found = {}
        for kind, (operation, status) in REFUSED_BY_HEAD.items():
            answer = await asyncio.to_thread(answer_to, port, request(operation, kind))
            assert answer.startswith(b"HTTP/1.1 " + status), kind
            found[kind] = await calls_for(port, request(operation, kind))
    assert {kind: calls for kind, calls in found.items() if calls > allowed} == {}, allowed


async def test_a_closed_connection_leaves_nothing_in_memory() -> None:
    async with serving(FastAPI()) as port:
        before = pending_timers()
        for request in REFUSED.values():
            await asyncio.to_thread(answer_to, port, request)
            # The client goes on for a while; then the connection is cut.
            await asyncio.to_thread(answer_to, port, request + b"more" * 10_000)
        await asyncio.to_thread(answer_to, port, GOOD)
        for _ in range(10):
            await asyncio.sleep(0)
        gc.collect()
        loop = asyncio.get_running_loop()  # other tests have servers in other threads
        found = (one for one in gc.get_objects() if type(one) is LimitedH11Protocol)
        assert [one for one in found if one.loop is loop] == []
        assert [timer for timer in pending_timers() if timer not in before] == []


async def test_few_large_requests_are_begun_in_one_step_of_the_loop() -> None:
    """However many connections send them, and one behind the other."""
    begun, steps = Counter[int](), count()
    step = next(steps)
    request = b"GET /?" + b"a" * 14_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"

    async def application(scope: Any, _: Any, send: Any) -> None:
        begun[step] += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_much(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(5 * request)
        for _ in range(5):
            assert (await reader.readuntil(END)).startswith(b"HTTP/1.1 204")
        writer.close()

    async with serving(application) as port:
        clients = asyncio.gather(*(send_much(port) for _ in range(20)))
        while not clients.done():
            step = next(steps)
            await asyncio.sleep(0)
        await clients
    assert begun.total() == 100
    assert max(begun.values()) <= EVENTS_AT_ONCE * 512 // len(request) + 1


async def test_what_was_there_before_any_request_is_not_collected_again() -> None:
    server = Server(config_of(FastAPI()))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    gc.unfreeze()  # as in a new process; the start freezes again what the tests leave frozen
    visited = len(gc.get_objects())
    await server.startup()
    try:
        assert gc.get_freeze_count() > visited / 2
        assert len(gc.get_objects()) < visited / 10
    finally:
        await server.shutdown()
