"""A job's snapshot, its events and its end. Knows neither Redis nor who works on it."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.errors import responses
from api.leaving import end_if_left
from api.schemas import JobView, absolute, job_view
from api.state import BaseUrl, Metrics, Queue
from worker.errors import WorkerError
from worker.events import JobEvent
from worker.job import TERMINAL, Job

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


class _Following(NamedTuple):
    """A listener's wish: this job, from after this event on."""

    job: Job
    last_seen: str | None


async def _following(
    job_id: JobId, queue: Queue, response: Response, last_event_id: LastEventId = None
) -> _Following:
    """Look the job up while the answer can still be a problem.

    A listener that has seen the end gets 204, which tells browsers not to connect again.
    """
    job, last_seen = await queue.get(job_id), last_event_id or None
    if last_seen and job.status in TERMINAL:
        async with aclosing(queue.events(job_id, after=last_seen)) as events:
            if await anext(events, None) is None:
                response.status_code = 204
    return _Following(job, last_seen)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="streamJobEvents",
    response_class=EventSourceResponse,
    summary="Events of a job",
    responses={
        204: {"description": "The listener has seen the end; there is nothing left."},
        **responses(404, 410, 422, 503),
    },
)
async def stream_job_events(
    following: Annotated[_Following, Depends(_following)],
    queue: Queue,
    metrics: Metrics,
    base_url: BaseUrl,
    request: Request,
    response: Response,
    cancel_on_disconnect: Annotated[
        bool, Query(description="Cancel the job if this listener leaves before its end.")
    ] = False,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events from the first to the terminal one, then the stream ends.

    `event` is `queued`, `started`, `progress` {`step`, `steps`, `eta_seconds`}, `preview` {`image`
    (a WebP data URL), `step`, `index`}, `image` (as in a job's `images`), `succeeded`, `failed`,
    `cancelled`, `retrying` {`attempt`, `reason`} or `gap` (older events were dropped). `id` grows;
    send the last one as `Last-Event-ID` to go on after it. A comment every 15 seconds keeps the
    connection alive.
    """
    if response.status_code == 204:
        return
    yield ServerSentEvent(retry=RETRY_MS)
    job, last_seen = following
    events = queue.events(job.id, after=last_seen)
    try:
        with metrics.event_streams.track_inprogress():
            async for event in events:
                yield ServerSentEvent(
                    id=event.id, event=event.event, data=_public_data(event, base_url)
                )
    except WorkerError as exc:
        # The answer has begun: end it, and the listener comes back with its Last-Event-ID.
        log.warning("job=%s event=stream_broken reason=%s", job.id, exc)
    finally:
        if cancel_on_disconnect:
            end_if_left(request, queue, job)
        await events.aclose()


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
