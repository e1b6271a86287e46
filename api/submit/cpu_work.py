"""Runs checks of texts: short ones at once, long ones in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MAX_CHARS_AT_ONCE = 1500
"""Checks of a text of this length take a few milliseconds, less than a thread costs under load.

A text of the maximum length would block the event loop for tens of milliseconds.
"""


async def check_text(chars: int, check: Callable[[], T]) -> T:
    """The result of `check`, whose work grows with the number of characters."""
    if chars <= MAX_CHARS_AT_ONCE:
        return check()
    return await asyncio.to_thread(check)
