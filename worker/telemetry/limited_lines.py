"""Limits log lines that strangers can cause as often as they like."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

SECONDS: Final = 1.0


class LimitedLines(logging.Filter):
    """A filter for a logger: one line of each of these messages passes in a second.

    It says how many were left out since the last one. Messages are compared before their arguments
    are filled in.
    """

    def __init__(self, *messages: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._messages = frozenset(messages)
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out = Counter[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        kind = record.msg
        if kind not in self._messages:
            return True
        now = self._clock()
        if now < self._next.get(kind, now):
            self._left_out[kind] += 1
            return False
        self._next[kind] = now + SECONDS
        if left_out := self._left_out.pop(kind, 0):
            record.msg = f"{kind} left_out={left_out}"
        return True
