"""Streams the images of a call as server-sent events: previews, then finished images."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.openai.errors import OpenAIError, OpenAIErrorBody
from api.openai.images.responses import PartialImage, completed_image, usage_of
from api.openai.job_events import Preview, follow_job, with_error_event
from api.submit.wait import read_images
from model.card import Card
from model.prompting.tokens import Tokenizers
from model.workload import sampling_passes
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.store.image_store import ImageStore


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


def event_lines(job: Job, context: StreamContext) -> AsyncGenerator[bytes]:
    """Yield the events of a job as bytes, and b"" if there is none for a while."""
    return with_error_event(_events(job, context), job, context.request_id, _error)


async def _events(job: Job, context: StreamContext) -> AsyncGenerator[bytes]:
    events = follow_job(job, context.queue, partial_images=context.partial_images)
    async with aclosing(events):
        async for event in events:
            if event is None:
                yield b""
            elif isinstance(event, Preview):
                yield _line(_partial(job, event, context))
            else:
                job = event
    files = await read_images(job, context.store)
    usage = await asyncio.to_thread(usage_of, job, context.card, context.tokenizers)
    for index, file in enumerate(files):
        completed = completed_image(
            job, index, file, kind=context.kind, quality=context.quality, usage=usage
        )
        yield _line(completed)


def _partial(job: Job, preview: Preview, context: StreamContext) -> PartialImage:
    last = sampling_passes(job.request)[-1]
    return PartialImage(
        type=f"{context.kind}.partial_image",
        b64_json=preview.b64,
        created_at=int(time.time()),
        size=f"{last.width}x{last.height}",
        quality=context.quality or "auto",
        output_format="webp",
        image_index=preview.image,
        job_id=job.id,
        partial_image_index=preview.number,
    )


def _line(event: BaseModel) -> bytes:
    name: str = event.type  # type: ignore[attr-defined]
    return format_sse_event(event=name, data_str=event.model_dump_json(ensure_ascii=True))


def _error(error: OpenAIErrorBody) -> bytes:
    return format_sse_event(
        event="error", data_str=OpenAIError(error=error).model_dump_json(ensure_ascii=True)
    )
