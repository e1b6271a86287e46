"""Lets connections parse what they received a slice at a time, a few in each step of the loop.

Whoever sends much that is slow to parse waits behind those who have just begun their request.
"""

import asyncio
from collections import deque
from typing import Protocol

EVENTS_AT_ONCE = 128
"""Events of the parser in one step of the event loop, and at most one slice more."""


class Parser(Protocol):
    """A connection that has received something."""

    def parse_slice(self) -> int:
        """Parse a bounded part of it; the number of events, or more if they were large."""

    def is_beginner(self) -> bool:
        """Whether it has used no more than one slice since its client last waited."""


class ParseTurns:
    """The turns of all connections of one event loop."""

    def __init__(self) -> None:
        self._beginners: deque[Parser] = deque()
        self._others: deque[Parser] = deque()
        self._waiting: set[Parser] = set()
        self._is_scheduled = False

    def ask(self, parser: Parser) -> None:
        """Give the connection a turn in one of the next steps, unless it waits for one already."""
        if parser in self._waiting:
            return
        self._waiting.add(parser)
        (self._beginners if parser.is_beginner() else self._others).append(parser)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        # Who asks now gets a turn in a later step.
        beginners, others = len(self._beginners), len(self._others)
        # One turn of each step is for the others, so that they get on too.
        events = self._turn(self._others) if others else 0
        while events < EVENTS_AT_ONCE and (beginners or others > 1):
            if beginners:
                beginners -= 1
                events += self._turn(self._beginners)
            else:
                others -= 1
                events += self._turn(self._others)
        self._is_scheduled = False
        if self._waiting:
            self._schedule()

    def _turn(self, line: deque[Parser]) -> int:
        parser = line.popleft()
        self._waiting.discard(parser)
        try:
            return parser.parse_slice()
        except Exception as exc:  # noqa: BLE001 - it must not cost the others their turn
            context = {"message": "a connection cannot be parsed", "exception": exc}
            asyncio.get_running_loop().call_exception_handler(context)
            return 1
