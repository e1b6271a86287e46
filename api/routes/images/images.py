"""`GET /images/{name}`: bytes that never change under their name, for those whom they belong to."""

import pathlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import FileResponse
from starlette.responses import MalformedRangeHeader
from starlette.responses import RangeNotSatisfiable as OutsideFile

from api.http.errors import RangeNotSatisfiable, responses
from api.submit.dependencies import CurrentCaller, Queue, Store
from worker.store.image_store import IMMUTABLE, MEDIA_TYPES

_BINARY: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for media_type in MEDIA_TYPES.values()
}

_FOR_BROWSERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""A picture may be shown by any page, but is never a page itself; its viewer styles it."""

router = APIRouter(tags=["images"])


class ImageFile(FileResponse):
    """A file response whose range errors are the service's own."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # RFC 9110, 14.2: a range that cannot be understood is ignored
        except OutsideFile as exc:
            raise RangeNotSatisfiable(file_size) from exc


@router.head("/images/{name}", include_in_schema=False)
@router.get(
    "/images/{name}",
    operation_id="getImage",
    response_class=Response,
    summary="A finished picture",
    responses={
        200: {"content": _BINARY, "description": "The picture."},
        206: {"content": _BINARY, "description": "The range that was asked for."},
        304: {"description": "The client has it already."},
        307: {
            "description": "The picture is in a bucket: fetch it from `Location`, without a key.",
            "headers": {
                "Location": {
                    "description": "A signed URL; where images are stored in S3 alone.",
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        },
        **responses(404, 410, 416, 422, 503),
    },
)
async def get_image(
    request: Request,
    name: Annotated[str, Path(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b.png"])],
    store: Store,
    caller: CurrentCaller,
    queue: Queue,
    if_none_match: Annotated[str | None, Header(description="ETags that the client has.")] = None,
) -> Response:
    """The bytes of a picture; the name is made of the content, so it may be kept for ever."""
    if caller.owner:
        await queue.owner_index.check_image(name)
    place = await store.locate(name, is_head=request.method == "HEAD")
    stem, _, extension = name.partition(".")
    headers = {"ETag": f'"{stem}"', "Cache-Control": IMMUTABLE, **_FOR_BROWSERS}
    if if_none_match is not None and _has(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if isinstance(place, pathlib.Path):
        return ImageFile(
            place,
            media_type=MEDIA_TYPES[extension],
            headers=headers,
            filename=name,
            content_disposition_type="inline",
        )
    # Not kept: when the signature is over, the bucket refuses it.
    return Response(
        status_code=307, headers={"Location": place, "Cache-Control": "no-store", **_FOR_BROWSERS}
    )


def _has(if_none_match: str, etag: str) -> bool:
    """Weak comparison of RFC 9110, 13.1.2."""
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in offered or etag in offered
