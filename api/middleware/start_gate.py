"""Lets requests begin a few at a time, so that a burst of them does not hold up the event loop.

A submission computes for some milliseconds before it first waits. A thousand that arrive together
would keep the loop busy for seconds, and replies of Redis that have arrived would look overdue.
"""

import asyncio
from collections import deque

STARTS_AT_ONCE = 4
"""Requests that begin in one step of the event loop."""


class StartGate:
    """The requests of one event loop, in the order of their arrival."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._started = 0

    async def wait_for_turn(self) -> None:
        """Return at once, or in a later step of the loop if many requests begin in this one."""
        loop = asyncio.get_running_loop()
        if self._started == 0:
            loop.call_soon(self._next_step)
        if self._started < STARTS_AT_ONCE:
            self._started += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_step(self) -> None:
        self._started = 0
        while self._waiting and self._started < STARTS_AT_ONCE:
            turn = self._waiting.popleft()
            if not turn.done():  # its request was cancelled
                turn.set_result(None)
                self._started += 1
        if self._started:
            asyncio.get_running_loop().call_soon(self._next_step)
