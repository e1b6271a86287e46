"""Checks request bodies: their content type and the size of their JSON; reads multipart forms."""

import codecs
import json
import re
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from api.http.errors import BodyRefused, MalformedForm, UnsupportedMediaType

_MAX_FIELD_BYTES = 1_000_000

MAX_JSON_VALUES: Final = 10_000
"""Values in a body, objects and lists included. A request with 800 tags has a thousand."""

MAX_JSON_DEPTH: Final = 100
MAX_BARE_BYTES: Final = 200_000
"""Bytes of a body outside of its strings: brackets, commas, numbers, but no blanks."""

MAX_ESCAPES: Final = 500_000
"""Backslashes in a body. Some clients escape each slash of an image: 250 000 in 16 MB."""

MAX_NOT_ASCII: Final = 2_000_000
"""Bytes of a body outside of ASCII."""

_PIECE_BYTES: Final = 1 << 16
_BLANKS: Final = b" \t\r\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_ASCII: Final = bytes(range(128))
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_HEAD_BYTES: Final = 8


class JsonMeter:
    """Counts what parsing a JSON text would cost, before it is parsed, in linear time.

    The time to parse and to validate a text grows with its values, not only with its bytes: a
    megabyte of unknown fields took seconds. Feed the text as it arrives.
    """

    def __init__(self) -> None:
        self.bytes_seen = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._held = b""
        self._is_in_string = False
        self._values = 1
        self._quotes = 0
        self._depth = 0
        self._bare = 0
        self._escapes = 0
        self._not_ascii = 0

    def feed(self, data: bytes) -> None:
        """Count the next part of the text.

        Raises:
            BodyRefused: the text has too much of something, or is not UTF-8.
        """
        for start in range(0, len(data), _PIECE_BYTES):
            self._feed_piece(data[start : start + _PIECE_BYTES])

    def feed_part(self, text: str) -> None:
        """Count another JSON text of the same body, of its own brackets and quotes; as `feed`."""
        self._is_in_string, self._held, self._depth = False, b"", 0
        self.feed(text.encode("utf-8", "replace"))

    def _feed_piece(self, piece: bytes) -> None:
        self.bytes_seen += len(piece)
        self._check_encoding(piece)
        parts = self._without_escapes(piece).split(b'"')
        bare = b"".join(parts[self._is_in_string :: 2]).translate(None, _BLANKS)
        self._is_in_string ^= len(parts) % 2 == 0
        self._quotes += len(parts) - 1
        self._bare += len(bare)
        self._values += sum(map(bare.count, (b",", b"[", b"{")))
        # Valid JSON has at most two strings for each value.
        _check("values", max(self._values, self._quotes // 4), MAX_JSON_VALUES)
        _check("characters outside of strings", self._bare, MAX_BARE_BYTES)
        for bracket in bare.translate(None, _NO_BRACKETS):
            self._depth += 1 if bracket in b"[{" else -1
            _check("levels of nesting", self._depth, MAX_JSON_DEPTH)

    def _check_encoding(self, piece: bytes) -> None:
        """Python's parser takes a long time for what is almost UTF-8, and also reads UTF-16."""
        try:
            self._decoder.decode(piece)
        except UnicodeDecodeError as exc:
            raise BodyRefused(400, "the body is not in UTF-8") from exc
        if b"\0" in piece:
            raise BodyRefused(400, "the body is not JSON in UTF-8: it contains null bytes")
        if not piece.isascii():
            self._not_ascii += len(piece.translate(None, _ASCII))
            _check("bytes outside of ASCII", self._not_ascii, MAX_NOT_ASCII)

    def _without_escapes(self, piece: bytes) -> bytes:
        """The text without escaped quotes and backslashes; a half escape is held back."""
        text, self._held = self._held + piece, b""
        found = text.count(b"\\")
        if not found:
            return text
        self._escapes += found
        _check("backslashes", self._escapes, MAX_ESCAPES)
        if (len(text) - len(text.rstrip(b"\\"))) % 2:
            text, self._held = text[:-1], b"\\"
        return text.replace(rb"\\", b"").replace(rb"\"", b"")


def _check(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise BodyRefused(422, f"the JSON has more than {limit} {what}", limit)


def metered(receive: Receive, headers: Headers) -> Receive:
    """`receive` that raises BodyRefused as soon as the body has too much JSON in it.

    Every body is metered that begins with a bracket, whatever its declared type, and declared JSON
    that begins like any value; other JSON fails at its first character. Forms are not: whoever
    parses JSON in one meters it. What Python's parser would read as UTF-16 or UTF-32 is refused.
    """
    media_type = headers.get("content-type", "").lower().lstrip()
    begins = b'[{"-0123456789' if "json" in media_type else b"[{"
    is_json: bool | None = False if media_type.startswith("multipart/") else None
    may_be_parsed = not media_type or "json" in media_type
    meter = JsonMeter()
    head = b""

    async def receive_metered() -> Message:
        nonlocal is_json, head
        message = await receive()
        data: bytes = message.get("body", b"")
        if may_be_parsed and len(head) < _HEAD_BYTES:
            head += data[: _HEAD_BYTES - len(head)]
            if len(head) == _HEAD_BYTES and _is_wide_json(head, begins):
                raise BodyRefused(400, "the body is JSON, but not in UTF-8")
        if is_json is None and (begin := data.lstrip(_BLANKS + _BYTE_ORDER_MARK)[:1]):
            is_json = begin in begins
        if is_json:
            meter.feed(data)
        return message

    return receive_metered


def _is_wide_json(head: bytes, begins: bytes) -> bool:
    """Whether a text that begins with `head` is JSON in UTF-16 or UTF-32, or may become it."""
    encoding = json.detect_encoding(head)
    if encoding.startswith("utf-8"):
        return False
    try:
        text = codecs.getincrementaldecoder(encoding)("surrogatepass").decode(head)
    except UnicodeDecodeError:  # for example the head of an AVIF file
        return False
    begin = text.lstrip(" \t\r\n\ufeff")[:1]
    return not begin or begin in begins.decode()


def media_type_of(request: Request) -> str:
    """The media type of `Content-Type` in lower case, without parameters; "" if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def require_json(request: Request) -> None:
    """Route dependency: raises UnsupportedMediaType unless the body is declared as JSON."""
    if not is_json(request):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type_of(request) or 'missing'}; send application/json"
        )


def is_json(request: Request) -> bool:
    """Whether the body is declared as JSON."""
    return bool(re.fullmatch(r"application/(?:[^/\s]+\+)?json", media_type_of(request)))


async def read_json(request: Request) -> Any:
    """The JSON in the body, for routes that accept other bodies too; FastAPI reads all others.

    Raises:
        RequestValidationError: the body is not JSON.
        BodyRefused: a number in it is too long.
    """
    try:
        return await request.json()
    except json.JSONDecodeError as exc:
        reason = {"error": exc.msg}
        wrong = {"type": "json_invalid", "loc": ("body", exc.pos), "msg": "", "input": {}}
        raise RequestValidationError([{**wrong, "ctx": reason}]) from exc
    except (ValueError, RecursionError) as exc:
        raise BodyRefused(400, "the body cannot be read as JSON") from exc


def is_form(request: Request) -> bool:
    """Whether the body is declared as a multipart form."""
    return media_type_of(request) == "multipart/form-data"


async def read_parts(
    request: Request, *, max_files: int, max_fields: int
) -> list[tuple[str, str | bytes]]:
    """Names and values of a form's parts in order; the values of files are bytes.

    Everything stays in memory: the limit on request bodies bounds it.

    Raises:
        MalformedForm: the form cannot be parsed or has too many parts.
    """
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=max_files,
        max_fields=max_fields,
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.spool_max_size = 0  # 0: never write to disk
    try:
        form = await parser.parse()
        return [
            (name, await part.read() if isinstance(part, UploadFile) else part)
            for name, part in form.multi_items()
        ]
    except MultiPartException as exc:
        raise MalformedForm(exc.message) from exc
    except UnicodeError as exc:
        raise MalformedForm("a text is not in the encoding that the form declares") from exc
    except ClientDisconnect as exc:
        raise MalformedForm("the client disconnected before the end of the form") from exc
    finally:
        # The form closes only files that were received completely.
        for file in parser._files_to_close_on_error:
            file.close()
