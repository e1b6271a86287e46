"""Follows a job for a stream: previews, then the finished job; every failure is one last event."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

from api.http.error_handlers import problem_response_for
from api.http.errors import JobUnfinished, JobUnsuccessful
from api.openai.errors import OpenAIErrorBody, error_of
from worker.errors import QueueUnavailable, WorkerError
from worker.job import Job
from worker.queue.job_queue import JobQueue


class Preview(NamedTuple):
    """Preview `number`, from 0, of image `image`: a WebP file in base64."""

    image: int
    number: int
    b64: str


@dataclass(slots=True)
class _PreviewSelection:
    """Selects `wanted` previews of each image, spread evenly over the steps."""

    wanted: int
    steps: int
    counts: dict[int, int] = field(default_factory=dict)

    def is_due(self, index: int, step: int) -> bool:
        """Whether the next preview of this image is due."""
        count = self.counts.get(index, 0)
        return count < self.wanted and step * (self.wanted + 1) >= self.steps * (count + 1)

    def add(self, index: int) -> int:
        """Count a preview and return its number, starting from 0."""
        count = self.counts.get(index, 0)
        self.counts[index] = count + 1
        return count


async def follow_job(
    job: Job, queue: JobQueue, *, partial_images: int = 0
) -> AsyncGenerator[Preview | Job | None]:
    """Yield previews, None if there is no event for a while, and at the end the succeeded job.

    Raises:
        JobUnsuccessful: the job failed or was cancelled.
        QueueUnavailable: Redis does not answer; the job is not affected.
    """
    previews = _PreviewSelection(partial_images, job.progress.steps)
    async with aclosing(queue.event_pages(job.id)) as pages:
        async for page in pages:
            if not page:
                yield None
            for event in page:
                if event.event != "preview":
                    continue
                index = event.data.get("index", 0)
                if previews.is_due(index, event.data["step"]):
                    b64 = event.data["image"].partition(",")[2]
                    yield Preview(index, previews.add(index), b64)
    job = await queue.get(job.id)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    yield job


async def with_error_event(
    events: AsyncGenerator[bytes],
    job: Job,
    request_id: str,
    encode: Callable[[OpenAIErrorBody], bytes],
) -> AsyncGenerator[bytes]:
    """Pass the events of a stream on; an error becomes the last one.

    The response has already begun, so it cannot have the status of the error.
    """
    failure: Exception | None = None
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except QueueUnavailable:
        failure = JobUnfinished(job)
    except (JobUnsuccessful, WorkerError) as exc:
        failure = exc
    if failure is not None:
        yield encode(error_of(problem_response_for(failure, request_id)).error)
