"""`/jobs`: lists, reads, cancels and streams jobs."""

import json
import logging
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.sse import format_sse_event

from api.http.error_handlers import problem_responses
from api.http.job_schemas import JobList, JobView, absolute, job_view
from api.http.sse import EventStream
from api.submit.dependencies import BaseUrl, Metrics, Queue
from api.submit.disconnect import cancel_in_background
from worker.errors import WorkerError
from worker.job import Status
from worker.job_events import JobEvent

RETRY_MS = 2000
"""How long clients wait before they reconnect to a broken stream."""

JobId = Annotated[str, Path(examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"])]
LastEventId = Annotated[
    str | None,
    Header(
        pattern=r"^(\d{1,19}-\d{1,19})?$",
        description="`id` of the last event received; the stream continues after it.",
        examples=["1795392000000-0"],
    ),
]

_ENCODER = json.JSONEncoder(separators=(",", ":"))  # ASCII: clients may split at U+2028

router = APIRouter(tags=["jobs"])
log = logging.getLogger(__name__)


@router.get(
    "/jobs",
    operation_id="listJobs",
    summary="List jobs",
    responses=problem_responses(422, 503),
)
async def list_jobs(
    queue: Queue,
    base_url: BaseUrl,
    response: Response,
    status: Annotated[
        Status | None, Query(description="Only jobs with this status.", examples=["succeeded"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Page size.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$",
            description="`next` of the previous page.",
            examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
        ),
    ] = None,
) -> JobList:
    """List the unexpired jobs of this key, newest first.

    With `status` a page may have fewer than `limit` jobs, or none, and still a `next`.
    """
    response.headers["Cache-Control"] = "no-store"
    jobs, next_cursor = await queue.jobs(status=status, limit=limit, after=cursor)
    return JobList(items=[job_view(job, base_url) for job in jobs], next=next_cursor)


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Get a job",
    responses=problem_responses(404, 410, 422, 503),
)
async def get_job(job_id: JobId, queue: Queue, base_url: BaseUrl, response: Response) -> JobView:
    """The current state of a job."""
    response.headers["Cache-Control"] = "no-store"
    return job_view(await queue.get(job_id), base_url)


@router.delete(
    "/jobs/{job_id}",
    operation_id="cancelJob",
    status_code=202,
    summary="Cancel a job",
    responses=problem_responses(403, 404, 409, 410, 422, 503),
)
async def cancel_job(job_id: JobId, queue: Queue, base_url: BaseUrl) -> JobView:
    """Cancel a queued or running job. A running job stops within one step."""
    return job_view(await queue.cancel(job_id), base_url)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="streamJobEvents",
    response_class=EventStream,
    summary="Stream the events of a job",
    responses={
        204: {"description": "The client has received the last event."},
        **problem_responses(404, 410, 422, 503),
    },
)
async def stream_job_events(
    request: Request,
    job_id: JobId,
    queue: Queue,
    metrics: Metrics,
    base_url: BaseUrl,
    last_event_id: LastEventId = None,
    cancel_on_disconnect: Annotated[
        bool, Query(description="Cancel the job if the client disconnects before the last event.")
    ] = False,
) -> Response:
    """Stream server-sent events from the first to the last one of the job.

    `event` is `queued`, `started`, `progress` {`step`, `steps`, `eta_seconds`}, `preview` {`image`
    (a WebP data URL), `step`, `index`}, `image` (as in a job's `images`), `succeeded`, `failed`,
    `cancelled`, `retrying` {`attempt`, `reason`} or `gap` (older events were dropped).

    Send the `id` of the last event as `Last-Event-ID` to continue after it. A comment every 15
    seconds keeps the connection alive. A client that reads too slowly gets a `gap` and the current
    state in place of the dropped events.
    """
    last_seen = last_event_id or None
    if await queue.has_seen_all(job_id, after=last_seen):
        # 204 tells browsers not to reconnect.
        return Response(status_code=204)
    if request.method == "HEAD":
        return Response(media_type=EventStream.media_type, headers={"Cache-Control": "no-cache"})

    async def stream() -> AsyncGenerator[bytes]:
        yield format_sse_event(retry=RETRY_MS)
        pages = queue.event_pages(job_id, after=last_seen)
        try:
            with metrics.event_streams.track_inprogress():
                async for page in pages:
                    yield b"".join(_format(event, base_url) for event in page)
        except WorkerError as exc:
            # The response has begun: end it, so that the client reconnects with its Last-Event-ID.
            log.warning("job=%s event=stream_broken reason=%s", job_id, exc)
        finally:
            await pages.aclose()

    on_disconnect = partial(cancel_in_background, queue, job_id) if cancel_on_disconnect else None
    return EventStream(stream(), on_disconnect=on_disconnect)


def _format(event: JobEvent, base_url: str) -> bytes:
    data = _ENCODER.encode(_public_data(event, base_url))
    return format_sse_event(id=event.id, event=event.event, data_str=data)


def _public_data(event: JobEvent, base_url: str) -> dict[str, Any]:
    """The data of an event, with absolute image URLs."""
    data: dict[str, Any] = _with_absolute_url(event.data, base_url)
    if isinstance(data.get("images"), list):
        data["images"] = [_with_absolute_url(image, base_url) for image in data["images"]]
    return data


def _with_absolute_url(image: Any, base_url: str) -> Any:
    """A copy; what another release may have written in place of an image stays as it is."""
    if not isinstance(image, dict):
        return image
    url = image.get("url")
    return {**image, "url": absolute(url, base_url)} if isinstance(url, str) else dict(image)
