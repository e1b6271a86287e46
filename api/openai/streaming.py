"""A call's pictures as server-sent events: previews as partial images, then the finished ones."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.http.errors import JobUnfinished, JobUnsuccessful, refusal_of
from api.openai.errors import error_of
from api.openai.responses import PartialImage, completed, usage_of
from api.submit.wait import read_images
from model.card import Card
from model.prompting.tokens import Tokenizers
from model.workload import passes
from worker.errors import QueueUnavailable, WorkerError
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.store.image_store import ImageStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What a stream is told from and by; `kind` is image_generation or image_edit."""

    queue: JobQueue
    store: ImageStore
    card: Card
    tokenizers: Tokenizers | None
    request_id: str
    kind: str
    quality: str | None
    partial_images: int


@dataclass(slots=True)
class _PreviewCount:
    """How many previews of each picture were passed on; they are spread evenly over the steps."""

    wanted: int
    steps: int
    counts: dict[int, int] = field(default_factory=dict)

    def takes(self, index: int, step: int) -> bool:
        """Whether the next one of this picture is due."""
        count = self.counts.get(index, 0)
        return count < self.wanted and step * (self.wanted + 1) >= self.steps * (count + 1)

    def add(self, index: int) -> int:
        """Count one more; its number from 0."""
        count = self.counts.get(index, 0)
        self.counts[index] = count + 1
        return count


async def told(job: Job, telling: StreamContext) -> AsyncGenerator[bytes]:
    """The events of the job's pictures as lines, or b"" where there is no news for a while.

    What goes wrong is the last event: the answer has begun.
    """
    try:
        async with aclosing(_events(job, telling)) as events:
            async for event in events:
                yield b"" if event is None else _line(event)
    except QueueUnavailable:
        yield _error(JobUnfinished(job), telling)
    except (JobUnsuccessful, WorkerError) as exc:
        yield _error(exc, telling)


async def _events(job: Job, telling: StreamContext) -> AsyncGenerator[BaseModel | None]:
    shown = _PreviewCount(telling.partial_images, job.progress.steps)
    async with aclosing(telling.queue.events_and_pauses(job.id)) as heard:
        async for event in heard:
            if event is None:
                yield None
            elif event.event == "preview":
                data = event.data
                index = data.get("index", 0)
                if shown.takes(index, data["step"]):
                    yield _partial(job, data, index, shown.add(index), telling)
    job = await telling.queue.get(job.id)
    if job.status != "succeeded":
        raise JobUnsuccessful(job)
    files = await read_images(job, telling.store)
    usage = await asyncio.to_thread(usage_of, job, telling.card, telling.tokenizers)
    for index, file in enumerate(files):
        yield completed(job, index, file, kind=telling.kind, quality=telling.quality, usage=usage)


def _partial(
    job: Job, data: dict[str, Any], index: int, number: int, telling: StreamContext
) -> PartialImage:
    last = passes(job.request)[-1]
    return PartialImage(
        type=f"{telling.kind}.partial_image",
        b64_json=data["image"].partition(",")[2],
        created_at=int(time.time()),
        size=f"{last.width}x{last.height}",
        quality=telling.quality or "auto",
        output_format="webp",
        image_index=index,
        job_id=job.id,
        partial_image_index=number,
    )


def _line(event: BaseModel) -> bytes:
    name: str = event.type  # type: ignore[attr-defined]
    return format_sse_event(event=name, data_str=event.model_dump_json())


def _error(exc: Exception, telling: StreamContext) -> bytes:
    error = error_of(refusal_of(exc, telling.request_id))
    return format_sse_event(event="error", data_str=error.model_dump_json())
