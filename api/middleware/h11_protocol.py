"""uvicorn's HTTP/1.1 protocol with timeouts for request head, body and slow readers.

uvicorn itself waits without limit for the rest of a request and for a client that does not read.
"""

import asyncio
import logging
import secrets
import sys
from typing import Any, Final, Literal

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.http.problem import ProblemResponse, ProblemType, render_problem
from api.http.problem_types import HEAD_TOO_LARGE, NOT_HTTP, REQUEST_TOO_SLOW, TOO_MANY_CONNECTIONS
from worker.settings import Settings

_LINGER_SECONDS: Final = 5.0
"""Time for a client to read the last response before the connection is cut."""

_RequestPart = Literal["head", "body"]

log = logging.getLogger(__name__)


class LimitedH11Protocol(H11Protocol):
    """One connection; its limits come from the settings in the application's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings: Settings = app_state["settings"]
        self._awaited: _RequestPart | None = None
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection; beyond the limit, its requests are answered with an error."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self.app = _too_many_connections
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        super().connection_lost(exc)
        for timer in (self._receive_timer, self._send_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the data, then update the timer."""
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        """Continue with the next request, which may have arrived already."""
        super().on_response_complete()
        self._update_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if its client does not read the rest."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    # -- receiving -------------------------------------------------------------------------------

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
            return "body"
        # Between requests uvicorn's keep-alive timer runs; the first byte stops it.
        is_idle = self.timeout_keep_alive_task is not None and not self.conn.trailing_data[0]
        return "head" if self.conn.their_state is h11.IDLE and not is_idle else None

    def _seconds(self, awaited: _RequestPart) -> float:
        settings = self._settings
        return settings.head_seconds if awaited == "head" else settings.body_seconds

    def _on_timeout(self, awaited: _RequestPart) -> None:
        log.info("event=slow_client awaited=%s seconds=%g", awaited, self._seconds(awaited))
        self._refuse(
            REQUEST_TOO_SLOW,
            f"the {awaited} of the request did not arrive within {self._seconds(awaited):g} s",
        )

    # -- sending ---------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads too slowly: start the timer."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """The client has caught up: stop the timer."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _cut_off(self) -> None:
        log.info("event=slow_client awaited=reading seconds=%g", self._settings.send_seconds)
        self.transport.abort()

    # -- refusing --------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP and too large heads with a problem, like all other errors."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(HEAD_TOO_LARGE, HEAD_TOO_LARGE.explanation)
        else:
            self._refuse(NOT_HTTP, "the bytes are not a valid HTTP/1.1 request")

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        """Send the problem if no response has started, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = render_problem(ProblemResponse(kind, detail, secrets.token_hex(16)))
            headers = [*answer.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=kind.status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            # The route may still be running: tell it that the client has disconnected.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application of connections beyond the limit."""
    response = ProblemResponse(
        TOO_MANY_CONNECTIONS,
        TOO_MANY_CONNECTIONS.explanation,
        secrets.token_hex(16),
        headers={"Retry-After": "1", "Connection": "close"},
    )
    answer = render_problem(response)
    await answer(scope, receive, send)
