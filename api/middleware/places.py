"""The places for connections of one API process, and a reserve in which only probes are answered.

A connection without a request that needs a key gives its place to a newer one, so that nobody
takes all places without a key. What remains is in use by holders of keys, who have their own limit.
"""

import secrets
from typing import Final, Protocol

from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application

from api.http.problem import ProblemResponse, render_problem
from api.http.problem_types import TOO_MANY_CONNECTIONS

PROBES: Final = frozenset({"/livez", "/readyz"})

RESERVE: Final = 16
"""Connections beyond the limit; the oldest of them is cut off for a newer one."""


class Connection(Protocol):
    """One connection, as far as its place is concerned."""

    def needs_key(self) -> bool:
        """Whether the request in progress comes from the holder of a key and needs it."""

    def cut_off(self) -> None:
        """Close the connection at once."""


class Places:
    """The open connections; at most `limit` have a place.

    What a new connection costs does not grow with their number: others may open many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # In the order in which they came, or in which their last request ended.
        self._idle: dict[Connection, None] = {}
        self._busy: dict[Connection, None] = {}
        # Those of the busy that were found to need a key, which they do until their request ends.
        self._with_key: dict[Connection, None] = {}
        self._reserve: dict[Connection, None] = {}

    def take(self, connection: Connection) -> bool:
        """Whether the new connection gets a place; else it is in the reserve."""
        if len(self._idle) + len(self._busy) + len(self._with_key) >= self._limit:
            replaced = next(iter(self._idle), None) or self._first_without_key()
            if replaced is None:
                if len(self._reserve) >= RESERVE:
                    self._cut_off(next(iter(self._reserve)))
                self._reserve[connection] = None
                return False
            self._cut_off(replaced)
        self._idle[connection] = None
        return True

    def begin(self, connection: Connection) -> None:
        """The connection has a request in progress."""
        if connection in self._idle:
            del self._idle[connection]
            self._busy[connection] = None

    def end(self, connection: Connection) -> None:
        """The request of the connection has ended."""
        if connection in self._busy or connection in self._with_key:
            self.leave(connection)
            self._idle[connection] = None

    def _first_without_key(self) -> Connection | None:
        """The busy connection that gives its place to another."""
        while self._busy:
            connection = next(iter(self._busy))
            if not connection.needs_key():
                return connection
            del self._busy[connection]
            self._with_key[connection] = None
        return None

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        for line in (self._idle, self._busy, self._with_key, self._reserve):
            line.pop(connection, None)

    def _cut_off(self, connection: Connection) -> None:
        self.leave(connection)
        connection.cut_off()


def probes_only(application: ASGI3Application) -> ASGI3Application:
    """The application of the reserve: it answers probes; other requests get an error."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await application(scope, receive, send)  # type: ignore[arg-type] # uvicorn's own types
            return
        problem = ProblemResponse(
            TOO_MANY_CONNECTIONS,
            TOO_MANY_CONNECTIONS.explanation,
            secrets.token_hex(16),
            headers={"Retry-After": "1", "Connection": "close"},
        )
        await render_problem(problem)(scope, receive, send)

    return answer  # type: ignore[return-value] # uvicorn's own types
