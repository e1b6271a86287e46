"""Streams the images of a call as server-sent events: previews, then finished images."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.http.error_handlers import problem_response_for
from api.http.errors import JobUnfinished, JobUnsuccessful
from api.openai.errors import error_of
from api.openai.images.responses import PartialImage, completed_image, usage_of
from api.submit.wait import read_images
from model.card import Card
from model.prompting.tokens import Tokenizers
from model.workload import sampling_passes
from worker.errors import QueueUnavailable, WorkerError
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.store.image_store import ImageStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What a stream needs. `kind` is image_generation or image_edit."""

    queue: JobQueue
    store: ImageStore
    card: Card
    tokenizers: Tokenizers | None
    request_id: str
    kind: str
    quality: str | None
    partial_images: int


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


async def event_lines(job: Job, context: StreamContext) -> AsyncGenerator[bytes]:
    """Yield the events of a job as bytes, and b"" if there is none for a while.

    An error is sent as the last event, because the response has already begun.
    """
    try:
        async with aclosing(_events(job, context)) as events:
            async for event in events:
                yield b"" if event is None else _line(event)
    except QueueUnavailable:
        yield _error(JobUnfinished(job), context)
    except (JobUnsuccessful, WorkerError) as exc:
        yield _error(exc, context)


async def _events(job: Job, context: StreamContext) -> AsyncGenerator[BaseModel | None]:
    previews = _PreviewSelection(context.partial_images, job.progress.steps)
    async with aclosing(context.queue.events(job.id)) as job_events:
        async for event in job_events:
            if event is None:
                yield None
            elif event.event == "preview":
                data = event.data
                index = data.get("index", 0)
                if previews.is_due(index, data["step"]):
                    yield _partial(job, data, index, previews.add(index), context)
    job = await context.queue.get(job.id)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    files = await read_images(job, context.store)
    usage = await asyncio.to_thread(usage_of, job, context.card, context.tokenizers)
    for index, file in enumerate(files):
        yield completed_image(
            job, index, file, kind=context.kind, quality=context.quality, usage=usage
        )


def _partial(
    job: Job, data: dict[str, Any], index: int, number: int, context: StreamContext
) -> PartialImage:
    last = sampling_passes(job.request)[-1]
    return PartialImage(
        type=f"{context.kind}.partial_image",
        b64_json=data["image"].partition(",")[2],
        created_at=int(time.time()),
        size=f"{last.width}x{last.height}",
        quality=context.quality or "auto",
        output_format="webp",
        image_index=index,
        job_id=job.id,
        partial_image_index=number,
    )


def _line(event: BaseModel) -> bytes:
    name: str = event.type  # type: ignore[attr-defined]
    return format_sse_event(event=name, data_str=event.model_dump_json())


def _error(exc: Exception, context: StreamContext) -> bytes:
    error = error_of(problem_response_for(exc, context.request_id))
    return format_sse_event(event="error", data_str=error.model_dump_json())
