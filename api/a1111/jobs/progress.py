"""Routes `progress`, `interrupt` and `skip`. They only concern the jobs of the calling client."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.a1111.errors import responses
from api.a1111.jobs.client_identity import ClientIdentity, CurrentClient
from api.a1111.jobs.schemas import A1111Progress, A1111State
from api.a1111.schemas import TIMESTAMP_FORMAT, A1111Done
from api.submit.dependencies import Queue
from worker.errors import JobAlreadyFinished, JobExpired, JobNotFound
from worker.job import Job
from worker.queue.job_queue import JobQueue

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])

_DISCONNECT_SECONDS = 0.5
"""Time for a disconnect of the caller to arrive and to be recorded."""


@router.get(
    "/progress",
    operation_id="a1111Progress",
    summary="Progress of the client's current job",
    responses=responses(401, 422, 503),
)
async def get_progress(
    client: CurrentClient,
    response: Response,
    skip_current_image: Annotated[
        bool, Query(description="Leave out the preview image.", examples=[True])
    ] = False,
) -> A1111Progress:
    """Progress of the oldest unfinished job of this client. Jobs of other clients do not show."""
    response.headers["Cache-Control"] = "no-store"
    found = await client.unfinished()
    # A job whose caller has disconnected comes last.
    jobs = [job for job, is_abandoned in sorted(found, key=lambda entry: entry[1])]
    preview = None
    if jobs and client.jobs and not skip_current_image:
        preview = await client.jobs.newest_preview(jobs[0].id)
    return progress_of(jobs, preview)


@router.post(
    "/interrupt",
    operation_id="a1111Interrupt",
    summary="Cancel the client's current job",
    responses=responses(401, 503),
)
async def interrupt(client: CurrentClient, queue: Queue) -> A1111Done:
    """Cancel the job that `progress` shows, queued or running.

    If the client has several jobs, those are cancelled whose caller has disconnected: a server that
    acts for many users interrupts for the user who has just left.
    """
    await _cancel_current(client, queue)
    return A1111Done()


@router.post(
    "/skip",
    operation_id="a1111Skip",
    summary="The same as interrupt",
    responses=responses(401, 503),
)
async def skip(client: CurrentClient, queue: Queue) -> A1111Done:
    """Cancel the job that `progress` shows: the images of a job are made together."""
    await _cancel_current(client, queue)
    return A1111Done()


def progress_of(jobs: Sequence[Job], preview: str | None) -> A1111Progress:
    """The progress of the first of a client's unfinished `jobs`; `preview` is a data URL.

    A queued job differs from no job only by `job_count`.
    """
    current = jobs[0] if jobs else None
    step, steps = (current.progress.step, current.progress.steps) if current else (0, 0)
    is_queued = current is not None and current.queue_position is not None
    return A1111Progress(
        progress=current.progress.fraction if current else 0,
        eta_relative=(current.eta_seconds or 0) if current else 0,
        state=A1111State(
            skipped=False,
            interrupted=False,
            stopping_generation=False,
            job=current.id if current else "",
            job_count=len(jobs),
            job_timestamp=current.created_at.strftime(TIMESTAMP_FORMAT) if current else "0",
            job_no=0,
            sampling_step=step,
            sampling_steps=steps,
        ),
        current_image=preview.partition(",")[2] if preview else None,
        textinfo=f"{current.queue_position} jobs ahead" if current and is_queued else None,
        current_task=current.id if current else None,
    )


async def _cancel_current(client: ClientIdentity, queue: JobQueue) -> None:
    found = await client.unfinished()
    if len(found) > 1 and not any(is_abandoned for _, is_abandoned in found):
        # The caller may be disconnecting right now; this is noticed a little later.
        await asyncio.sleep(_DISCONNECT_SECONDS)
        found = await client.unfinished()
    abandoned = [job for job, is_abandoned in found if is_abandoned]
    for job in abandoned or [job for job, _ in found[:1]]:
        with suppress(JobAlreadyFinished, JobNotFound, JobExpired):
            await queue.cancel(job.id)
