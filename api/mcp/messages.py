"""Reads the message of an MCP call, and writes errors as JSON-RPC errors."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from api.http.errors import BodyRefused, BodyTooLarge
from api.http.problem import FieldError, ProblemResponse
from api.http.problem_types import MALFORMED_JSON, VALIDATION_FAILED

MAX_BODY_BYTES: Final = 262_144
"""A message is text: a picture in it is named, not included."""

MAX_ID_CHARS: Final = 256
"""Ids and progress tokens are repeated in each message of the answer, so they are short."""

_MAX_SENTENCES: Final = 10

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_INVALID_PARAMS: Final = -32602
_OF_TOOLS: Final = ("/params/name", "/params/arguments")
_INTERNAL_ERROR: Final = -32603


async def read_message(request: Request) -> bytes:
    """The body of the request: one JSON-RPC request or notification.

    Raises:
        BodyTooLarge: it has more than MAX_BODY_BYTES bytes.
        RequestValidationError, BodyRefused: it is not JSON, or not one message.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
    errors = list(_wrong_fields(_parse(bytes(body))))
    if errors:
        raise RequestValidationError(errors)
    return bytes(body)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError as exc:
        wrong = {"type": "json_invalid", "loc": ("body", exc.pos), "msg": "", "input": None}
        raise RequestValidationError([{**wrong, "ctx": {"error": exc.msg}}]) from exc
    except ValueError as exc:
        raise BodyRefused(400, "a number in the body is too long") from exc


def _wrong_fields(message: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(message, list):
        yield _wrong((), "a batch of messages; send each in a request of its own")
        return
    if not isinstance(message, dict):
        yield _wrong((), "must be a JSON object")
        return
    if message.get("jsonrpc") != "2.0":
        yield _wrong(("jsonrpc",), 'must be "2.0"')
    if not isinstance(message.get("method"), str):
        yield _wrong(("method",), "must be a text")
    if "id" in message and not _is_short_id(message["id"]):
        yield _wrong(("id",), _ID_REASON)
    params = message.get("params", {})
    if not isinstance(params, dict):
        yield _wrong(("params",), "must be a JSON object")
        return
    if message.get("method") == "tools/call":
        yield from _wrong_call(params)
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        yield _wrong(("params", "_meta"), "must be a JSON object")
    elif "progressToken" in meta and not _is_short_id(meta["progressToken"]):
        yield _wrong(("params", "_meta", "progressToken"), _ID_REASON)


def _wrong_call(params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is wrong with the call of a tool, whose package would only say that something is."""
    if not isinstance(params.get("name"), str):
        yield _wrong(("params", "name"), "must be the name of a tool")
    if not isinstance(params.get("arguments"), dict | None):
        yield _wrong(("params", "arguments"), "must be a JSON object")


_ID_REASON: Final = f"must be an integer or a text of at most {MAX_ID_CHARS} characters"


def _is_short_id(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return False
    return len(str(value)) <= MAX_ID_CHARS


def _wrong(path: tuple[str, ...], reason: str) -> Mapping[str, Any]:
    return {"type": "value_error", "loc": ("body", *path), "msg": reason, "input": None}


def mcp_error(problem: ProblemResponse) -> Response:
    """The problem as a JSON-RPC error with its HTTP status, 400 for an invalid message."""
    status = 400 if problem.kind is VALIDATION_FAILED else problem.kind.status
    code = _INTERNAL_ERROR if status >= 500 else _INVALID_REQUEST
    pointers = [error.pointer for error in problem.errors]
    if pointers and all(pointer in _OF_TOOLS for pointer in pointers):
        code = _INVALID_PARAMS
    error = {
        "code": _PARSE_ERROR if problem.kind is MALFORMED_JSON else code,
        "message": plain_text(problem),
        "data": error_data(problem),
    }
    body = {"jsonrpc": "2.0", "id": None, "error": error}
    return JSONResponse(body, status, headers=dict(problem.headers))


def error_data(problem: ProblemResponse) -> dict[str, Any]:
    """The `data` of an error: its stable code, the id of the request, and the wrong fields."""
    return {
        "code": problem.kind.code,
        "instance": problem.instance,
        "errors": [error.model_dump() for error in problem.errors],
    }


def plain_text(problem: ProblemResponse) -> str:
    """The problem in one paragraph for a language model: what is wrong, and what is allowed."""
    wrong = "; ".join(map(_sentence, problem.errors[:_MAX_SENTENCES]))
    if len(problem.errors) > _MAX_SENTENCES:
        wrong = f"{wrong}; and {len(problem.errors) - _MAX_SENTENCES} more"
    wait = problem.headers.get("Retry-After")
    parts = [f"{problem.kind.title}: {wrong or problem.detail or problem.kind.explanation}"]
    if wait:
        parts.append(f"Try again in {wait} s.")
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts)


def _sentence(error: FieldError) -> str:
    field = error.pointer.removeprefix("/").replace("/", ".")
    text = f"{field}: {error.detail}" if field else error.detail
    limits = error.limit if isinstance(error.limit, list) else [error.limit]
    told = [str(limit) for limit in limits if limit is not None]
    if all(limit in error.detail for limit in told):
        return text
    return f"{text} (allowed: {', '.join(told)})" if len(told) > 1 else f"{text} (limit: {told[0]})"
