"""Limits the memory of request bodies: of one, and of all in this process together."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from api.http.errors import BodiesTooLarge, BodyTooLarge

FREE_BYTES: Final = 65_536
"""The beginning of a body that is not counted, so that requests without images always pass."""


class BodyBudget:
    """The bytes that the bodies of all requests in progress may have together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class LimitedBody:
    """The body of one request.

    Starlette's own limit answers a declared excess with fixed plain text.
    """

    def __init__(self, receive: Receive, headers: Headers, limit: int, budget: BodyBudget) -> None:
        self._receive = receive
        self._limit = limit
        self._budget = budget
        declared = headers.get("content-length", "")
        self._is_too_large = (
            declared.isascii()
            and declared.isdigit()
            and (len(declared) > 18 or int(declared) > limit)
        )
        self._size = self._held = 0
        self._is_complete = False
        self.is_abandoned = False
        """Whether the client left before the end of the body."""

    async def receive(self) -> Message:
        """The next message of the request.

        Raises:
            BodyTooLarge: the body is larger than the limit, as it declares or in fact.
            BodiesTooLarge: the budget is spent.
        """
        if self._is_too_large:
            raise BodyTooLarge(self._limit)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_abandoned = not self._is_complete
        else:
            self._is_complete = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise BodyTooLarge(self._limit)
        self._hold(max(0, self._size - FREE_BYTES))
        return message

    def _hold(self, size: int) -> None:
        """Count what has arrived. What is only declared may never come."""
        budget, more = self._budget, size - self._held
        if more and budget.held + more > budget.limit:
            raise BodiesTooLarge(budget.limit)
        budget.held += more
        self._held = size

    def release(self) -> None:
        """The request has ended, and with it whatever was made of its body."""
        self._budget.held -= self._held
        self._held = 0
