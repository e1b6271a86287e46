"""`/images/{name}`: serves finished images to their owners, who may delete them."""

import logging
import pathlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import FileResponse
from starlette.responses import MalformedRangeHeader
from starlette.responses import RangeNotSatisfiable as OutsideFile

from api.http.error_handlers import problem_responses
from api.http.errors import RangeNotSatisfiable
from api.submit.dependencies import CurrentCaller, Queue, Store
from worker.errors import ImageExpired, ImageNotFound
from worker.store.image_store import IMMUTABLE, MEDIA_TYPES
from worker.store.threads import write_in_thread

logger = logging.getLogger(__name__)

_BINARY: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for media_type in MEDIA_TYPES.values()
}

_BROWSER_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Any page may embed an image, but an image must never run as a page; viewers may style it."""

router = APIRouter(tags=["images"])


class ImageFile(FileResponse):
    """A file response that raises the service's own range error."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # RFC 9110, 14.2: an invalid range is ignored
        except OutsideFile as exc:
            raise RangeNotSatisfiable(file_size) from exc


@router.head("/images/{name}", include_in_schema=False)
@router.get(
    "/images/{name}",
    operation_id="getImage",
    response_class=Response,
    summary="Get an image",
    responses={
        200: {"content": _BINARY, "description": "The image."},
        206: {"content": _BINARY, "description": "The requested range."},
        304: {"description": "The client has the image already."},
        307: {
            "description": "The image is in a bucket: fetch it from `Location`, without a key.",
            "headers": {
                "Location": {
                    "description": "A signed URL; only if images are stored in S3.",
                    "schema": {"type": "string", "format": "uri"},
                }
            },
        },
        **problem_responses(404, 410, 416, 422, 503),
    },
)
async def get_image(
    request: Request,
    name: Annotated[str, Path(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b.png"])],
    store: Store,
    caller: CurrentCaller,
    queue: Queue,
    if_none_match: Annotated[str | None, Header(description="ETags of cached images.")] = None,
) -> Response:
    """Get an image. Its name is a hash of its content, so it can be cached without expiry."""
    if caller.owner:
        await queue.owner_index.check_image(name)
    try:
        location = await store.locate(name, is_head=request.method == "HEAD")
    except (ImageNotFound, ImageExpired) as exc:
        raise await queue.owner_index.missing_image(name, exc) from None
    stem, _, extension = name.partition(".")
    headers = {"ETag": f'"{stem}"', "Cache-Control": IMMUTABLE, **_BROWSER_HEADERS}
    if if_none_match is not None and _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if isinstance(location, pathlib.Path):
        return ImageFile(
            location,
            media_type=MEDIA_TYPES[extension],
            headers=headers,
            filename=name,
            content_disposition_type="inline",
        )
    # Not cached: the bucket refuses the URL when its signature expires.
    return Response(
        status_code=307,
        headers={"Location": location, "Cache-Control": "no-store", **_BROWSER_HEADERS},
    )


@router.delete(
    "/images/{name}",
    operation_id="deleteImage",
    status_code=204,
    response_class=Response,
    summary="Delete an image",
    responses={
        204: {"description": "The image is deleted, or was before."},
        **problem_responses(404, 410, 422, 503),
    },
)
async def delete_image(
    name: Annotated[str, Path(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b.png"])],
    store: Store,
    queue: Queue,
) -> None:
    """Delete an image that one of your jobs made or starts from: its URL answers 410 at once.

    The file is deleted as well, unless another key has an image of the same bytes. The job stays:
    it can be replayed, and `POST /verify` still knows the image. Queued jobs that need its bytes
    fail.
    """
    if await queue.owner_index.delete_image(name):
        logger.info("image=%s event=deleted", name)
        await write_in_thread(store.delete, name)
        await queue.owner_index.end_removal(name)


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, 13.1.2)."""
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in offered or etag in offered
