"""Streams server-sent events and closes the source as soon as the stream ends.

FastAPI's own `EventSourceResponse` leaves the generator of a stalled client to the garbage
collector and raises an error while it closes.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from fastapi.sse import KEEPALIVE_COMMENT
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

KEEPALIVE_SECONDS = 15.0
"""Pause after which a comment is sent, because proxies close silent connections."""


class EventStream(StreamingResponse):
    """Sends `events`: encoded events, one or more at a time, or b"" while there are none."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        status_code: int = 200,
        *,
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        """`on_disconnect` is called if the client disconnects before the last event."""
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        self._events = events
        self._on_disconnect = on_disconnect
        self._is_over = False
        self._sent = self._with_keepalives()
        super().__init__(self._sent, status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end, the client disconnects or the server stops."""
        async with aclosing(self._events), aclosing(self._sent):
            await super().__call__(scope, receive, send)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Return when the client has disconnected; Starlette then ends the stream."""
        await super().listen_for_disconnect(receive)
        # The end of a response looks like a disconnect too.
        if self._on_disconnect is not None and not self._is_over:
            self._on_disconnect()

    async def _with_keepalives(self) -> AsyncGenerator[bytes]:
        last_sent = time.monotonic()
        async for event in self._events:
            now = time.monotonic()
            if event or now - last_sent >= KEEPALIVE_SECONDS:
                last_sent = now
                yield event or KEEPALIVE_COMMENT
                # Many may be there at once; let other streams run, and notice a disconnect.
                await asyncio.sleep(0)
        self._is_over = True
