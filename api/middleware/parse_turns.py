"""Lets connections parse what they received a slice at a time, a few in each step of the loop.

Whoever sends much that is slow to parse waits behind those who have just begun their request.
"""

import asyncio
from collections import deque
from typing import Protocol

TURNS_AT_ONCE = 4
"""Slices that are parsed in one step of the event loop."""


class Parser(Protocol):
    """A connection that has received something."""

    def parse_slice(self) -> None:
        """Parse a bounded part of it."""

    def is_beginner(self) -> bool:
        """Whether its request has used no more than one slice."""


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
        self._is_scheduled = False
        # One turn of each step is for the others, so that they get on too.
        chosen = [self._others.popleft()] if self._others else []
        for line in (self._beginners, self._others):
            while line and len(chosen) < TURNS_AT_ONCE:
                chosen.append(line.popleft())
        if self._beginners or self._others:
            self._schedule()
        for parser in chosen:
            self._waiting.discard(parser)
            parser.parse_slice()
