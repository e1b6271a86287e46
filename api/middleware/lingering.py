"""A transport that closes so that the client can still read the last response.

Closing a socket with unread input resets the connection, and a reset may destroy what was sent
before (RFC 9112, 9.6). So the sending side is closed first, and some input is read and dropped.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 1_000_000
"""The connection is cut after either."""

READ_SECONDS: Final = 5.0
"""Time for a client to read the last response."""


class LingeringTransport(asyncio.Transport):
    """The transport of one connection; `is_input_over` says that a request was read completely."""

    def __init__(self, transport: asyncio.Transport, is_input_over: Callable[[], bool]) -> None:
        super().__init__()
        self._transport = transport
        self._is_input_over = is_input_over
        self._dropped = 0
        self._timers: list[asyncio.TimerHandle] = []
        self.is_lingering = False

    def close(self) -> None:
        """Close for good if no more input is expected, else linger."""
        transport, loop = self._transport, asyncio.get_running_loop()
        if self.is_closing():
            return
        self._timers.append(loop.call_later(READ_SECONDS, transport.abort))
        if self._is_input_over() or not transport.can_write_eof():
            transport.close()
            return
        self.is_lingering = True
        try:
            transport.write_eof()
        except OSError:  # the client has reset the connection
            transport.abort()
            return
        transport.resume_reading()
        self._timers.append(loop.call_later(LINGER_SECONDS, transport.close))

    def on_lost(self) -> None:
        """The connection is closed: leave nothing behind that keeps it in memory."""
        for timer in self._timers:
            timer.cancel()

    def drop(self, size: int) -> None:
        """Count input that was dropped."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.is_lingering or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, unless the connection is closing."""
        if not self.is_lingering:
            self._transport.write(data)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Take no more input, unless it is dropped."""
        if not self.is_lingering:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take input again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known about the connection."""
        return self._transport.get_extra_info(name, default)
