"""Calls that answer with pictures: they wait for their job, and name it where they cannot.

What every dialect shares whose clients know no jobs. No picture is lost with such a call.
"""

import asyncio
from collections.abc import Sequence

from api.http.errors import JobImagesUnavailable, JobUnfinished, JobUnsuccessful
from api.submit.context import SubmissionContext
from worker.errors import QueueUnavailable, StoreError
from worker.job import TERMINAL, Job
from worker.store.image_store import ImageStore


async def wait_for_success(job: Job, submission: SubmissionContext, limit: float) -> Job:
    """The job once it has succeeded, after `limit` seconds at most or those of `Prefer: wait`.

    Raises:
        JobUnfinished: the time is over, or nobody can tell now; the job goes on.
        JobUnsuccessful: it failed or was cancelled.
    """
    seconds = limit if submission.wait is None else submission.wait
    try:
        job = await submission.wait_for(job, seconds)
    except QueueUnavailable as exc:
        raise JobUnfinished(job) from exc
    if job.status not in TERMINAL:
        raise JobUnfinished(job)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    return job


async def read_images(job: Job, store: ImageStore) -> Sequence[bytes]:
    """The files of a job that succeeded, in order.

    Raises:
        PicturesAway: the store does not answer; the job has their names.
        ImageExpired: the time of the results is over.
    """
    names = [image.name for image in job.images]
    try:
        return [await asyncio.to_thread(store.read, name) for name in names]
    except StoreError as exc:
        raise JobImagesUnavailable(job) from exc
