"""Decodes request bodies with a `Content-Encoding`: gzip and deflate, piece by piece."""

import asyncio
import zlib
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from api.http.errors import BodyTooLarge, BrokenCoding, UnsupportedCoding

_PIECE_BYTES: Final = 65_536
_MAX_CODINGS: Final = 2
_MAX_MEMBERS: Final = 100
"""Files in one gzip body; programs write one, or a few that they join."""

_GZIP: Final = zlib.MAX_WBITS | 16
_RAW: Final = -zlib.MAX_WBITS


def decoded_body(receive: Receive, headers: Headers, limit: int) -> Receive:
    """`receive` for the body as it was before the client encoded it.

    It raises BodyTooLarge if any step of decoding makes more than `limit` bytes, BrokenCoding if
    the body is not what its codings say, and UnsupportedCoding for other codings.
    """
    listed = ",".join(headers.getlist("content-encoding")).lower().split(",")
    codings = [coding for name in listed if (coding := name.strip()) not in ("", "identity")]
    unknown = [coding for coding in codings if coding not in _DECODERS]
    if unknown or len(codings) > _MAX_CODINGS:
        return _refusing(receive, unknown[0] if unknown else ", ".join(codings[:4]))
    for coding in reversed(codings):
        receive = _DecodedBody(receive, coding, limit).receive
    return receive


def _refusing(receive: Receive, coding: str) -> Receive:
    """`receive` that raises UnsupportedCoding if there is a body."""

    async def receive_nothing() -> Message:
        message = await receive()
        if message.get("body"):
            raise UnsupportedCoding(coding)
        return message

    return receive_nothing


class _DecodedBody:
    """A body of one coding. A piece is decoded when it is asked for, so none is held in memory."""

    def __init__(self, receive: Receive, coding: str, limit: int) -> None:
        self._receive = receive
        self._coding = coding
        self._limit = limit
        self._decoder = _DECODERS[coding]()
        self._encoded_size = self._size = 0
        self._pending = b""
        self._has_more = self._is_waiting = True
        self._is_over = False

    async def receive(self) -> Message:
        """The next message of the request, with at most 64 kB of the decoded body."""
        if self._is_over:
            return await self._receive()
        if self._is_waiting:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._has_more = message.get("more_body", False)
            self._pending = message.get("body", b"")
            self._add(encoded=len(self._pending))
        else:
            await asyncio.sleep(0)  # others run between two pieces
        try:
            piece = self._decoder.decode(self._pending)
        except zlib.error as exc:
            raise BrokenCoding(
                f"Content-Encoding names {self._coding}, but the body is not"
            ) from exc
        self._pending = self._decoder.rest
        self._add(decoded=len(piece))
        self._is_waiting = not self._pending and len(piece) < _PIECE_BYTES
        self._is_over = self._is_waiting and not self._has_more
        if self._is_over and self._encoded_size and not self._decoder.is_complete:
            raise BrokenCoding(f"the body is cut off in its {self._coding} coding")
        return {"type": "http.request", "body": piece, "more_body": not self._is_over}

    def _add(self, *, encoded: int = 0, decoded: int = 0) -> None:
        self._encoded_size += encoded
        self._size += decoded
        if max(self._encoded_size, self._size) > self._limit:
            raise BodyTooLarge(self._limit)


class _GzipDecoder:
    """Decodes gzip; `rest` is input that was not used yet."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._count = 1
        self.rest = b""

    def decode(self, data: bytes) -> bytes:
        """The next piece; raises zlib.error."""
        if self._member.eof:
            # gzip itself and Python's module skip zeros after the end, with which tapes are filled.
            data = data.lstrip(b"\0")
            if not data:
                self.rest = b""
                return b""
            self._count += 1
            if self._count > _MAX_MEMBERS:
                raise zlib.error("too many members")
            self._member = zlib.decompressobj(_GZIP)
        piece = self._member.decompress(data, _PIECE_BYTES)
        self.rest = self._member.unconsumed_tail or self._member.unused_data
        return piece

    @property
    def is_complete(self) -> bool:
        """Whether the end of the data was reached."""
        return self._member.eof


class _DeflateDecoder:
    """Decodes deflate with its frame (RFC 1950), or without it, as many clients send it."""

    def __init__(self) -> None:
        self._start = b""
        self._data: zlib._Decompress | None = None
        self.rest = b""

    def decode(self, data: bytes) -> bytes:
        """The next piece; raises zlib.error."""
        if self._data is None:
            self._start = data = self._start + data
            if len(data) < 2:
                return b""
            has_frame = data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._data = zlib.decompressobj(zlib.MAX_WBITS if has_frame else _RAW)
        piece = self._data.decompress(data, _PIECE_BYTES)
        if self._data.unused_data:
            raise zlib.error("more bytes after the end")
        self.rest = self._data.unconsumed_tail
        return piece

    @property
    def is_complete(self) -> bool:
        """Whether the end of the data was reached."""
        return self._data is not None and self._data.eof


_DECODERS: Final[Mapping[str, type[_GzipDecoder] | type[_DeflateDecoder]]] = {
    "gzip": _GzipDecoder,
    "x-gzip": _GzipDecoder,
    "deflate": _DeflateDecoder,
}
