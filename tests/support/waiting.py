"""Waits for a state instead of sleeping for a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


def wait_until(condition: Callable[[], Any], *, seconds: float = 60) -> None:
    """Poll until the condition holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still false after {seconds} s"
        time.sleep(0.02)


async def async_wait_until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], *, seconds: float = 60
) -> None:
    """The same without blocking the event loop; the condition may be a coroutine."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        assert time.monotonic() < deadline, f"still false after {seconds} s"
        await asyncio.sleep(0.01)
