"""A stream of server-sent events that is closed the moment it is over, whatever ended it.

FastAPI's own leaves a generator whose reader had stopped to the garbage collector, and fails on
the way out.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

KEEPALIVE_SECONDS = 15.0
"""After so long without a word a comment is sent: proxies close what is silent."""


class EventStream(StreamingResponse):
    """Sends what `lines` yields: events as bytes, or b"" now and then where there are none."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncGenerator[bytes], status_code: int = 200) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        self._lines = lines
        self._sent = _kept_alive(lines)
        super().__init__(self._sent, status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until there is nothing left, the client leaves or the server stops."""
        async with aclosing(self._lines), aclosing(self._sent):
            await super().__call__(scope, receive, send)


async def _kept_alive(lines: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    told_at = time.monotonic()
    async for line in lines:
        now = time.monotonic()
        if line or now - told_at >= KEEPALIVE_SECONDS:
            told_at = now
            yield line or KEEPALIVE_COMMENT
            # Another listener's turn, and this one's chance to leave: a page is read in one go.
            await asyncio.sleep(0)
