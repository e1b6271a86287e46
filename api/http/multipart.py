"""Multipart forms, part by part.

Nothing goes to disk: the service's limit to bodies is what a form may take of memory.
"""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from api.http.errors import MalformedForm

_MAX_FIELD_BYTES = 1_000_000


def is_form(request: Request) -> bool:
    """Whether the body is announced as a multipart form."""
    return media_type_of(request) == "multipart/form-data"


def media_type_of(request: Request) -> str:
    """What the body is announced as, in small letters and without parameters; "" for nothing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_parts(
    request: Request, *, max_files: int, max_fields: int
) -> list[tuple[str, str | bytes]]:
    """Names and values of a form's parts, in their order; files are bytes.

    Raises:
        MalformedForm: it cannot be read, or has too many parts.
    """
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=max_files,
        max_fields=max_fields,
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.spool_max_size = 0  # of 0 means: never to disk
    try:
        form = await parser.parse()
        return [
            (name, await part.read() if isinstance(part, UploadFile) else part)
            for name, part in form.multi_items()
        ]
    except MultiPartException as exc:
        raise MalformedForm(exc.message) from exc
    except UnicodeError as exc:
        raise MalformedForm("its text is not in the encoding that it names") from exc
    except ClientDisconnect as exc:
        raise MalformedForm("the client left before its end") from exc
    finally:
        # The form itself knows only files that came to their end.
        for file in parser._files_to_close_on_error:
            file.close()
