"""uvicorn's HTTP/1.1 protocol with limits for time, work and connections.

uvicorn itself waits without limit for the rest of a request and for a client that does not read,
and parses all that has arrived at once. docs/decisions.md tells which of its parts this relies on.
"""

import asyncio
import logging
import secrets
import sys
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Literal

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.http.field_errors import printable
from api.http.problem import ProblemResponse, ProblemType, render_problem
from api.http.problem_types import (
    BODY_TOO_LARGE,
    HEAD_TOO_LARGE,
    NOT_HTTP,
    REQUEST_TOO_SLOW,
)
from api.middleware.authentication import is_public_path
from api.middleware.lingering import LINGER_SECONDS, LingeringTransport
from api.middleware.parse_turns import ParseTurns
from api.middleware.places import Places, probes_only
from api.middleware.strict_h11 import EVENTS_PER_SLICE, StrictConnection
from worker.settings import Settings

READ_BYTES: Final = 32_768
"""Bytes taken from a socket at once; a connection holds no more of them unparsed."""

_SOME_ID: Final = "0" * 32
"""Stands for the id of a request in a response that is made once."""

SLOW_CLIENT: Final = {
    part: f"event=slow_client awaited={part} seconds=%g" for part in ("head", "body", "reading")
}
"""A log line for each part that a client is too slow with."""

_RequestPart = Literal["head", "body", "rest"]

log = logging.getLogger(__name__)


class ConnectionLimits:
    """What all connections of one API process share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = Places(settings.max_connections)
        self.turns = ParseTurns()
        # The loop fills it and hands it over in one go, so one is enough for all connections.
        self.buffer = memoryview(bytearray(READ_BYTES))


class _Flow(FlowControl):
    """uvicorn's switch for reading; it also holds the parser and lets it go on."""

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        self.read_paused = False
        self._on_resume()


class LimitedH11Protocol(H11Protocol, asyncio.BufferedProtocol):
    """One connection."""

    conn: StrictConnection
    transport: LingeringTransport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._settings = limits.settings
        self.conn = StrictConnection(limits.settings.max_head_bytes)
        self._is_completing = self._is_pipelining = False
        self._awaited: _RequestPart | None = None
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection; beyond the limit only probes are answered."""
        super().connection_made(transport)
        self.transport = LingeringTransport(transport, self._is_input_over)
        self.flow = _Flow(self.transport, self._go_on)
        if not self._limits.places.take(self):
            self.app = probes_only(self.app)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, which would keep the connection in memory."""
        self._limits.places.leave(self)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.transport.on_lost()
        for timer in (self._receive_timer, self._send_timer):
            if timer is not None:
                timer.cancel()

    def needs_key(self) -> bool:
        """Whether the request in progress comes from the holder of a key and needs it."""
        scope = self.cycle.scope
        return "caller" in scope["state"] and not is_public_path(scope["path"])

    def cut_off(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def on_response_complete(self) -> None:
        """Continue with the next request, which may have arrived already."""
        self._limits.places.end(self)
        self._is_completing = True
        try:
            super().on_response_complete()
        finally:
            self._is_completing = False
        self._update_timer()

    # -- receiving -------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what it reads next."""
        return self._limits.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the loop has read; it is parsed when the connection has its turn."""
        if self.transport.is_lingering:
            self.transport.drop(nbytes)
        elif self.conn.their_state not in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            self._unset_keepalive_if_required()
            self._is_pipelining = self._is_pipelining and self.conn.has_unparsed_data
            self.conn.receive_data(bytes(self._limits.buffer[:nbytes]))
            self.transport.pause_reading()
            self._limits.turns.ask(self)

    def is_beginner(self) -> bool:
        """Whether it has used no more than one slice since its client last waited."""
        return self.conn.parsed_events <= EVENTS_PER_SLICE and not self._is_pipelining

    def parse_slice(self) -> int:
        """Parse a part of what has arrived; the number of events, or more if they were large."""
        if self.transport.is_closing():
            return 0
        self.handle_events()
        return self.conn.work_of_slice

    def handle_events(self) -> None:
        """Parse a slice, start the request if its head is complete, and plan what comes next."""
        if self._is_completing and self.conn.has_unparsed_data:
            # The client did not wait for the response: its next request waits behind others.
            self._is_pipelining = True
            self.transport.pause_reading()
            self._limits.turns.ask(self)
            return
        self.conn.begin_slice()
        super().handle_events()
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._limits.places.begin(self)
        if self.conn.is_cut:
            self.transport.pause_reading()
            self._limits.turns.ask(self)
        elif not self.flow.read_paused and not self._is_body_held():
            self.transport.resume_reading()
        self._update_timer()

    def _is_body_held(self) -> bool:
        return self.conn.is_held and self.conn.has_unparsed_data

    def _go_on(self) -> None:
        """The application waits for the body, or the response is complete."""
        self.conn.is_held = False
        if self.conn.their_state is h11.SEND_BODY and self.conn.has_unparsed_data:
            self._limits.turns.ask(self)
        else:
            self.transport.resume_reading()

    def _is_input_over(self) -> bool:
        """Whether the request has been received completely, and nothing after it."""
        is_idle = self.conn.their_state is h11.IDLE and not self.conn.has_unparsed_data
        return is_idle or self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    def _update_timer(self) -> None:
        """Start the timer for the awaited part unless it runs: single bytes must not reset it."""
        awaited = self._awaited_part()
        if awaited == self._awaited:
            return
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None
        self._awaited = awaited
        if awaited is not None:
            seconds = self._seconds(awaited)
            self._receive_timer = self.loop.call_later(seconds, self._on_timeout, awaited)

    def _awaited_part(self) -> _RequestPart | None:
        """The part still to arrive; None while a request is processed or none has begun."""
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return "rest" if self.conn.our_state is h11.DONE else "body"
        # Between requests uvicorn's keep-alive timer runs; the first byte stops it.
        is_idle = self.timeout_keep_alive_task is not None and not self.conn.has_unparsed_data
        return "head" if self.conn.their_state is h11.IDLE and not is_idle else None

    def _seconds(self, awaited: _RequestPart) -> float:
        settings = self._settings
        times = {"head": settings.head_seconds, "body": settings.body_seconds}
        return times.get(awaited, LINGER_SECONDS)

    def _on_timeout(self, awaited: _RequestPart) -> None:
        if awaited == "rest":  # of a body that nobody needs
            self.transport.close()
            return
        log.info(SLOW_CLIENT[awaited], self._seconds(awaited))
        self._refuse(
            REQUEST_TOO_SLOW,
            f"the {awaited} of the request did not arrive within {self._seconds(awaited):g} s",
        )

    # -- sending ---------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads too slowly: start the timer."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self._cut_off_reader)

    def resume_writing(self) -> None:
        """The client has caught up: stop the timer."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _cut_off_reader(self) -> None:
        log.info(SLOW_CLIENT["reading"], self._settings.send_seconds)
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends; a connection that is closing already needs nothing more."""
        if not self.transport.is_closing():
            super().shutdown()

    # -- refusing --------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP and too large heads with a problem, like all other errors."""
        error = sys.exception()
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if hint == 431:
            self._refuse(HEAD_TOO_LARGE, HEAD_TOO_LARGE.explanation)
        elif hint == 413:
            self._refuse(BODY_TOO_LARGE, str(error))
        else:
            self._refuse(NOT_HTTP, f"the bytes are not a valid HTTP/1.1 request: {error}")

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        """Send the problem if no response has started, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            before, after = _answer(kind, printable(detail))
            self.transport.write(before + secrets.token_hex(16).encode() + after)
            self.conn.send_failed()  # it need not compose what is composed already
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The route may still be running: tell it that the client has disconnected.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()


@lru_cache(maxsize=64)
def _answer(kind: ProblemType, detail: str) -> tuple[bytes, bytes]:
    """The bytes of a response before and after the id of the request.

    Whoever sends no HTTP is answered without a request being made of it, as cheaply as possible.
    """
    answer = render_problem(ProblemResponse(kind, detail, _SOME_ID))
    headers = [*answer.raw_headers, (b"connection", b"close")]
    connection = h11.Connection(h11.SERVER)
    events = (
        h11.Response(
            status_code=kind.status, headers=headers, reason=HTTPStatus(kind.status).phrase
        ),
        h11.Data(data=bytes(answer.body)),
        h11.EndOfMessage(),
    )
    sent = b"".join(connection.send(event) or b"" for event in events)
    before, _, after = sent.partition(_SOME_ID.encode())
    return before, after
