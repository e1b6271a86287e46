"""Checks the content type of request bodies and reads multipart forms."""

import json
import re
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from api.http.errors import MalformedForm, UnsupportedMediaType

_MAX_FIELD_BYTES = 1_000_000


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
        HTTPException: 400, the body is nested too deeply or not UTF-8.
    """
    try:
        return await request.json()
    except json.JSONDecodeError as exc:
        reason = {"error": exc.msg}
        wrong = {"type": "json_invalid", "loc": ("body", exc.pos), "msg": "", "input": {}}
        raise RequestValidationError([{**wrong, "ctx": reason}]) from exc
    except (UnicodeError, RecursionError) as exc:
        raise HTTPException(400) from exc


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
