"""h11's parser for one connection, made strict and interruptible.

h11 parses all that has arrived, and takes what other servers read differently (RFC 9112, 11.2).
"""

import re
from typing import Final

import h11

EVENTS_PER_SLICE: Final = 32
"""Events of h11 that one slice may parse: a head, a chunk or a piece of a body each."""

_HEAD_BYTES_PER_EVENT: Final = 512
"""Of a head, which is read several times; a body is only copied."""

MAX_SMALL_REST: Final = 65_536
"""A body of at most this many bytes is read to its end even if nobody needs it any more."""

_FREE_FRAMING: Final = 16_384
_BODY_PER_FRAMING: Final = 16
"""Chunk sizes and extensions may take this many bytes, and one more for so many of the body."""

_NOT_CRLF = re.compile(rb"(?<!\r)\n")
_FOLDED_LINE = re.compile(rb"\n[ \t]")
_LENGTHS = re.compile(rb"\ncontent-length:([^\r]*)", re.IGNORECASE)

_ONE_VALUE: Final = (
    *(b"authorization", b"content-type", b"host"),
    *(b"idempotency-key", b"origin", b"sec-fetch-site"),
)
"""Headers that decide who may do what: a proxy must not take one and the service another."""

_CHUNK_HEAD = re.compile(rb"(?:\r\n)?[0-9A-Fa-f]+(?:;[^\r\n]*)?\r\n")
_LAST_CHUNK = re.compile(rb"(?:\r\n)?0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")
"""What precedes the bytes of a chunk, and what ends the body (RFC 9112, 7.1)."""

_Received = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class StrictConnection(h11.Connection):
    """The server's side of one connection.

    It parses in slices. A body is parsed only while the application waits for it.
    """

    def __init__(self, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self.is_held = False
        """Whether the body has to wait for the application."""
        self.is_cut = False
        """Whether the slice ended before the data did."""
        self.parsed_events = 0
        """Events since the beginning of the request."""
        self._events_left = EVENTS_PER_SLICE
        self._head_bytes = 0
        self._expected: int | None = 0
        self._framing_bytes = self._body_bytes = 0
        self._framing = b""

    def begin_slice(self) -> None:
        """Allow the next events."""
        self._events_left = EVENTS_PER_SLICE
        self._head_bytes = 0
        self.is_cut = False

    @property
    def events_of_slice(self) -> int:
        """How many events the slice had so far."""
        return EVENTS_PER_SLICE - self._events_left

    @property
    def work_of_slice(self) -> int:
        """What the slice cost so far, in events; a large head costs as much as several."""
        return self.events_of_slice + self._head_bytes // _HEAD_BYTES_PER_EVENT

    @property
    def has_unparsed_data(self) -> bool:
        """Whether received data waits to be parsed."""
        return bool(self.trailing_data[0])

    @property
    def is_rest_small(self) -> bool:
        """Whether the rest of the body is worth waiting for, to keep the connection."""
        return self._expected is not None and self._expected - self._body_bytes <= MAX_SMALL_REST

    def next_event(self) -> _Received:
        """The next event of this slice; NEED_DATA if it has ended or the body is held.

        Raises:
            RemoteProtocolError: the data is not HTTP/1.1, or can be read in two ways, or more of it
                is framing than of the body.
        """
        if self.their_state is h11.SEND_BODY and self.is_held:
            return h11.NEED_DATA
        if self._events_left == 0:
            self.is_cut = True
            return h11.NEED_DATA
        self._events_left -= 1
        self.parsed_events += 1
        before, _ = self.trailing_data
        event = super().next_event()
        parsed = before[: len(before) - len(self.trailing_data[0])]
        if isinstance(event, h11.Request):
            self._begin(event, parsed)
        elif self._expected is None:
            self._check_framing(event, parsed)
        elif isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
        return event

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """Close the connection after a response that comes long before the end of the body.

        Also if the client asked whether to send it: nobody knows whether it will.
        """
        is_rest_certain = self.is_rest_small and not self.they_are_waiting_for_100_continue
        is_early = self.their_state is h11.SEND_BODY and not is_rest_certain
        if isinstance(event, h11.Response) and is_early:
            others = [header for header in event.headers if header[0] != b"connection"]
            headers = [*others, (b"connection", b"close")]
            event = h11.Response(
                status_code=event.status_code, headers=headers, reason=event.reason
            )
        return super().send(event)

    def _begin(self, request: h11.Request, head: bytes) -> None:
        """Check a head. Other servers must not see another body, or no body, in the same bytes."""
        self._head_bytes += len(head)
        names = [name for name, _ in request.headers]
        is_chunked = b"transfer-encoding" in names
        lengths: list[bytes] = _LENGTHS.findall(head)
        if _NOT_CRLF.search(head):
            wrong = "a line of the head ends with a bare line feed"
        elif _FOLDED_LINE.search(head):
            wrong = "a header is folded into two lines"
        elif len(lengths) > 1 or any(b"," in length for length in lengths):
            wrong = "there are several Content-Length"
        elif is_chunked and lengths:
            wrong = "there are both Content-Length and Transfer-Encoding"
        elif several := _several_values(request):
            wrong = f"there are several {several} headers"
        elif is_chunked and request.http_version < b"1.1":
            wrong = "HTTP/1.0 has no Transfer-Encoding"
        else:
            self._expected = None if is_chunked else int(lengths[0]) if lengths else 0
            self.is_held = self._expected != 0
            self.parsed_events = 1
            self._framing_bytes = self._body_bytes = 0
            self._framing = b""
            return
        raise h11.RemoteProtocolError(wrong)

    def _check_framing(self, event: _Received, parsed: bytes) -> None:
        """Check and count what is around the bytes of a chunked body: it costs much to parse."""
        body = len(event.data) if isinstance(event, h11.Data) else 0
        framing = parsed[: len(parsed) - body]
        self._body_bytes += body
        self._framing_bytes += len(framing)
        self._framing += framing
        allowed = _FREE_FRAMING + self._body_bytes // _BODY_PER_FRAMING
        if event is h11.NEED_DATA and _NOT_CRLF.search(self._framing + self.trailing_data[0]):
            raise h11.RemoteProtocolError("a line of the chunks ends with a bare line feed")
        if self._framing_bytes > allowed:
            raise h11.RemoteProtocolError(
                f"the chunks are too small: {self._framing_bytes} bytes of framing for "
                f"{self._body_bytes} bytes of the body, but at most {allowed} are allowed",
                error_status_hint=413,
            )
        # h11 may have parsed a part of the framing before the rest arrived.
        is_last = isinstance(event, h11.EndOfMessage)
        if is_last or (body and self._framing):
            expected = _LAST_CHUNK if is_last else _CHUNK_HEAD
            if not expected.fullmatch(self._framing):
                raise h11.RemoteProtocolError("a chunk is malformed")
            self._framing = b""


def _several_values(request: h11.Request) -> str | None:
    """The name of a header with different values that may have only one."""
    found: dict[bytes, bytes] = {}
    for name, value in request.headers:
        if name in _ONE_VALUE and found.setdefault(name, value) != value:
            return name.decode()
    return None
