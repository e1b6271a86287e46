"""A job's snapshot, its events and its end. Knows neither Redis nor who works on it."""

import json
import logging
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.sse import format_sse_event

from api.http.errors import responses
from api.http.schemas import JobList, JobView, absolute, job_view
from api.http.sse import EventStream
from api.submit.dependencies import BaseUrl, Metrics, Queue
from api.submit.disconnect import cancel_if_disconnected
from worker.errors import WorkerError
from worker.job import Status
from worker.job_events import JobEvent

RETRY_MS = 2000
"""How long a listener waits before it connects again."""

JobId = Annotated[str, Path(examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"])]
LastEventId = Annotated[
    str | None,
    Header(
        pattern=r"^(\d{1,19}-\d{1,19})?$",
        description="`id` of the last event that was seen; the stream goes on after it.",
        examples=["1795392000000-0"],
    ),
]

router = APIRouter(tags=["jobs"])
log = logging.getLogger(__name__)


@router.get(
    "/jobs",
    operation_id="listJobs",
    summary="Own jobs, newest first",
    responses=responses(422, 503),
)
async def list_jobs(
    queue: Queue,
    base_url: BaseUrl,
    response: Response,
    status: Annotated[
        Status | None, Query(description="Only jobs of this status.", examples=["succeeded"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="The most that come.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$",
            description="`next` of the page before.",
            examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
        ),
    ] = None,
) -> JobList:
    """The jobs of this key that have not expired.

    A page may have fewer than `limit` jobs, or none, and still a `next`, where few have the status
    that was asked for.
    """
    response.headers["Cache-Control"] = "no-store"
    jobs, following = await queue.jobs(status=status, limit=limit, after=cursor)
    return JobList(items=[job_view(job, base_url) for job in jobs], next=following)


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Snapshot of a job",
    responses=responses(404, 410, 422, 503),
)
async def get_job(job_id: JobId, queue: Queue, base_url: BaseUrl, response: Response) -> JobView:
    """What is known of a job now."""
    response.headers["Cache-Control"] = "no-store"
    return job_view(await queue.get(job_id), base_url)


@router.delete(
    "/jobs/{job_id}",
    operation_id="cancelJob",
    status_code=202,
    summary="Cancel a job",
    responses=responses(403, 404, 409, 410, 422, 503),
)
async def cancel_job(job_id: JobId, queue: Queue, base_url: BaseUrl) -> JobView:
    """Cancel a job that waits or runs; a running one stops within one step."""
    return job_view(await queue.cancel(job_id), base_url)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="streamJobEvents",
    response_class=EventStream,
    summary="Events of a job",
    responses={
        204: {"description": "The listener has seen the end; there is nothing left."},
        **responses(404, 410, 422, 503),
    },
)
async def stream_job_events(
    job_id: JobId,
    queue: Queue,
    metrics: Metrics,
    base_url: BaseUrl,
    request: Request,
    last_event_id: LastEventId = None,
    cancel_on_disconnect: Annotated[
        bool, Query(description="Cancel the job if this listener leaves before its end.")
    ] = False,
) -> Response:
    """Server-sent events from the first to the terminal one, then the stream ends.

    `event` is `queued`, `started`, `progress` {`step`, `steps`, `eta_seconds`}, `preview` {`image`
    (a WebP data URL), `step`, `index`}, `image` (as in a job's `images`), `succeeded`, `failed`,
    `cancelled`, `retrying` {`attempt`, `reason`} or `gap` (older events were dropped). `id` grows;
    send the last one as `Last-Event-ID` to go on after it. A comment every 15 seconds keeps the
    connection alive. A listener that reads too slowly finds a `gap` and the current state where
    events were dropped meanwhile.
    """
    last_seen = last_event_id or None
    if await queue.has_seen_all(job_id, after=last_seen):
        # It tells browsers not to connect again.
        return Response(status_code=204)

    async def told() -> AsyncGenerator[bytes]:
        yield format_sse_event(retry=RETRY_MS)
        heard = queue.events_and_pauses(job_id, after=last_seen)
        try:
            with metrics.event_streams.track_inprogress():
                async for event in heard:
                    yield b"" if event is None else _line(event, base_url)
        except WorkerError as exc:
            # The answer has begun: end it, and the listener comes back with its Last-Event-ID.
            log.warning("job=%s event=stream_broken reason=%s", job_id, exc)
        finally:
            if cancel_on_disconnect:
                cancel_if_disconnected(request, queue, job_id)
            await heard.aclose()

    return EventStream(told())


def _line(event: JobEvent, base_url: str) -> bytes:
    data = json.dumps(_public_data(event, base_url), ensure_ascii=False, separators=(",", ":"))
    return format_sse_event(id=event.id, event=event.event, data_str=data)


def _public_data(event: JobEvent, base_url: str) -> dict[str, Any]:
    """The event's data with absolute image URLs."""
    data = dict(event.data)
    if "url" in data:
        data["url"] = absolute(data["url"], base_url)
    if "images" in data:
        data["images"] = [
            {**image, "url": absolute(image["url"], base_url)} for image in data["images"]
        ]
    return data
