"""Waits for a job and reads its images, for dialects whose calls answer with images."""

from collections.abc import Awaitable, Callable, Sequence

from api.http.errors import JobImagesUnavailable, JobUnfinished, JobUnsuccessful
from api.submit.context import SubmissionContext
from worker.errors import QueueUnavailable, StoreError
from worker.job import TERMINAL, Job
from worker.store.image_store import ImageStore
from worker.store.threads import read_in_thread


async def wait_for_success(
    job: Job,
    submission: SubmissionContext,
    limit: float,
    *,
    on_disconnect: Callable[[Job], Awaitable[None]] | None = None,
) -> Job:
    """Wait until the job succeeds: as long as `Prefer: wait` says, or else `limit` seconds.

    `on_disconnect` is called if the client disconnects and did not ask to cancel the job then.

    Raises:
        JobUnfinished: the time is over, Redis does not answer or the client has disconnected; the
            job continues.
        JobUnsuccessful: the job failed or was cancelled.
    """
    seconds = limit if submission.wait_seconds is None else submission.wait_seconds
    try:
        job = await submission.wait_for(job, seconds, on_disconnect=on_disconnect)
    except QueueUnavailable as exc:
        raise JobUnfinished(job) from exc
    if job.status not in TERMINAL:
        raise JobUnfinished(job)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    return job


async def read_images(job: Job, store: ImageStore) -> Sequence[bytes]:
    """The image files of a job that succeeded, in order.

    Raises:
        JobImagesUnavailable: the store does not answer; the job still lists the images.
        ImageExpired: the images have been removed after their time, or were lost.
    """
    names = [image.name for image in job.images]
    try:
        return [await read_in_thread(store.read, name) for name in names]
    except StoreError as exc:
        raise JobImagesUnavailable(job) from exc
