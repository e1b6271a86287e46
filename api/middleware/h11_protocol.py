"""uvicorn's HTTP/1.1 connection with an end to its patience: with a head, a body and a reader.

uvicorn waits for ever for the rest of a request and for a client that does not read.
Knows no routes.
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

from api.http.errors import HEAD_TOO_LARGE, NOT_HTTP, TOO_MANY_CONNECTIONS, TOO_SLOW
from api.http.problem import ProblemResponse, ProblemType, as_problem
from worker.settings import Settings

_LINGER_SECONDS: Final = 5.0
"""What a client gets to read a last answer before the connection is cut."""

_Awaited = Literal["head", "body"]

log = logging.getLogger(__name__)


class LimitedH11Protocol(H11Protocol):
    """One connection; its limits are those of the settings in the application's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings: Settings = app_state["settings"]
        self._awaited: _Awaited | None = None
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; one too many hears so as soon as it has said what it wants."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self.app = _too_many
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        super().connection_lost(exc)
        for timer in (self._receiving, self._sending):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on, and see what is awaited now."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with what the client sent meanwhile."""
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one whose client does not read what is left."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    # -- receiving -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Start the clock of what is awaited, unless it runs: single bytes do not set it back."""
        awaited = self._what_is_awaited()
        if awaited == self._awaited:
            return
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
        self._awaited = awaited
        if awaited is not None:
            seconds = self._seconds(awaited)
            self._receiving = self.loop.call_later(seconds, self._lose_patience, awaited)

    def _what_is_awaited(self) -> _Awaited | None:
        """The rest of a head or a body; None while a request is worked at or none has begun."""
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        # Between requests uvicorn has a clock of its own, which the first byte stops.
        is_idle = self.timeout_keep_alive_task is not None and not self.conn.trailing_data[0]
        return "head" if self.conn.their_state is h11.IDLE and not is_idle else None

    def _seconds(self, awaited: _Awaited) -> float:
        settings = self._settings
        return settings.head_seconds if awaited == "head" else settings.body_seconds

    def _lose_patience(self, awaited: _Awaited) -> None:
        log.info("event=slow_client awaited=%s seconds=%g", awaited, self._seconds(awaited))
        self._refuse(
            TOO_SLOW, f"no whole {awaited} of a request came in {self._seconds(awaited):g} s"
        )

    # -- sending ---------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads more slowly than is sent."""
        super().pause_writing()
        self._sending = self.loop.call_later(self._settings.send_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _cut_off(self) -> None:
        log.info("event=slow_client awaited=reading seconds=%g", self._settings.send_seconds)
        self.transport.abort()

    # -- refusing --------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or too much of it, gets a problem as everything else does."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(HEAD_TOO_LARGE, HEAD_TOO_LARGE.explanation)
        else:
            self._refuse(NOT_HTTP, "the bytes are no HTTP/1.1 request")

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        """Say why if there is still a chance to, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = as_problem(ProblemResponse(kind, detail, secrets.token_hex(16)))
            headers = [*answer.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=kind.status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            # What the route says now comes too late; it hears that the client has left.
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection beyond the limit."""
    refusal = ProblemResponse(
        TOO_MANY_CONNECTIONS,
        TOO_MANY_CONNECTIONS.explanation,
        secrets.token_hex(16),
        headers={"Retry-After": "1", "Connection": "close"},
    )
    answer = as_problem(refusal)
    await answer(scope, receive, send)
