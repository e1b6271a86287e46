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

    def is_replaceable(self, *, requests: bool) -> bool:
        """Whether no request is in progress; with `requests`, or one that needs no key."""

    def cut_off(self) -> None:
        """Close the connection at once."""


class Places:
    """The open connections in the order in which they came; at most `limit` have a place."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: dict[Connection, None] = {}
        self._reserve: dict[Connection, None] = {}

    def take(self, connection: Connection) -> bool:
        """Whether the new connection gets a place; else it is in the reserve."""
        if len(self._places) >= self._limit:
            replaced = self._first(requests=False) or self._first(requests=True)
            if replaced is None:
                if len(self._reserve) >= RESERVE:
                    self._cut_off(next(iter(self._reserve)))
                self._reserve[connection] = None
                return False
            self._cut_off(replaced)
        self._places[connection] = None
        return True

    def _first(self, *, requests: bool) -> Connection | None:
        """The oldest connection that gives its place to another: those without requests first."""
        found = (one for one in self._places if one.is_replaceable(requests=requests))
        return next(found, None)

    def leave(self, connection: Connection) -> None:
        """The connection is closed."""
        self._places.pop(connection, None)
        self._reserve.pop(connection, None)

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
