"""`progress`, `interrupt` and `skip`: never about anybody's jobs but the caller's own."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.a1111.client_identity import ClientIdentity, CurrentVisitor
from api.a1111.response import progress_of, responses
from api.a1111.schemas import A1111Done, A1111Progress
from api.submit.dependencies import Queue
from api.submit.disconnect import POLL_SECONDS
from worker.errors import JobAlreadyFinished, JobExpired, JobNotFound
from worker.queue.job_queue import JobQueue

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])


@router.get(
    "/progress",
    operation_id="a1111Progress",
    summary="How far the client's own job is",
    responses=responses(401, 422, 503),
)
async def get_progress(
    visitor: CurrentVisitor,
    response: Response,
    skip_current_image: Annotated[
        bool, Query(description="Leave the preview out.", examples=[True])
    ] = False,
) -> A1111Progress:
    """The oldest of the jobs that this client waits for; nothing of anybody else's."""
    response.headers["Cache-Control"] = "no-store"
    found = await visitor.unfinished()
    # One whose caller has hung up is told of only where no other is left.
    jobs = [job for job, has_left in sorted(found, key=lambda one: one[1])]
    preview = None
    if jobs and visitor.jobs and not skip_current_image:
        preview = await visitor.jobs.newest_preview(jobs[0].id)
    return progress_of(jobs, preview)


@router.post(
    "/interrupt",
    operation_id="a1111Interrupt",
    summary="Cancel the client's own job",
    responses=responses(401, 503),
)
async def interrupt(visitor: CurrentVisitor, queue: Queue) -> A1111Done:
    """End the job that `progress` tells of, queued or running.

    Of several, those whose caller has hung up: a server that stands for many people interrupts for
    the one who has just left.
    """
    await _interrupt(visitor, queue)
    return A1111Done()


@router.post(
    "/skip",
    operation_id="a1111Skip",
    summary="The same as interrupt",
    responses=responses(401, 503),
)
async def skip(visitor: CurrentVisitor, queue: Queue) -> A1111Done:
    """End the job that `progress` tells of: the pictures of a job are made together."""
    await _interrupt(visitor, queue)
    return A1111Done()


async def _interrupt(visitor: ClientIdentity, queue: JobQueue) -> None:
    found = await visitor.unfinished()
    if len(found) > 1 and not any(has_left for _, has_left in found):
        # The caller may be hanging up at this very moment, which is noticed a little later.
        await asyncio.sleep(2 * POLL_SECONDS)
        found = await visitor.unfinished()
    left = [job for job, has_left in found if has_left]
    for job in left or [job for job, _ in found[:1]]:
        with suppress(JobAlreadyFinished, JobNotFound, JobExpired):
            await queue.cancel(job.id)
