"""Many HTTP exchanges at once over plain connections, so that the client costs little."""

import asyncio
from dataclasses import dataclass

_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status and body."""

    status: int
    body: bytes


class Connection:
    """One connection of HTTP/1.1 to a port of this machine, kept open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def exchange(
        self, method: str, path: str, headers: dict[str, str], body: str = ""
    ) -> Answer:
        """Send a request and read the response, which must have a Content-Length."""
        status, length = await self.begin(method, path, headers, body)
        async with asyncio.timeout(_SECONDS):
            return Answer(status, await self._reader.readexactly(length))

    async def begin(
        self, method: str, path: str, headers: dict[str, str], body: str = ""
    ) -> tuple[int, int]:
        """Send a request and read the head of the response: its status and Content-Length."""
        all_headers = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in all_headers.items())]
        self._writer.write("\r\n".join([*lines, "", body]).encode())
        async with asyncio.timeout(_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").lower().split("\r\n")
        named = dict(field.split(": ", 1) for field in fields if field)
        return int(first.split()[1]), int(named.get("content-length", 0))

    async def read_until(self, text: bytes) -> None:
        """Read a streamed body up to this text."""
        async with asyncio.timeout(_SECONDS):
            await self._reader.readuntil(text)

    def close(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()
