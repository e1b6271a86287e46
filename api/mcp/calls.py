"""Runs the tools for the caller of one HTTP request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import anyio
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

from api.auth.key_limits import headers as limit_headers
from api.http.error_handlers import problem_response_for, validation_problem
from api.mcp.answers import Answer, ImageLink, describe_job, describe_presets
from api.mcp.arguments import (
    LEFT_OUT,
    LONGEST_WAIT_SECONDS,
    JobArguments,
    NoArguments,
    WaitArguments,
    read_arguments,
    unknown_fields,
)
from api.mcp.messages import plain_text
from api.mcp.previews import make_preview
from api.submit.context import SubmissionContext
from api.submit.dependencies import (
    CallerUrlSigner,
    CurrentCaller,
    Loras,
    Metrics,
    ServiceSettings,
    Store,
)
from api.submit.disconnect import cancel_in_background
from api.submit.submitter import Submitter
from model.request import GenerationRequest
from worker.errors import QueueUnavailable, WorkerError
from worker.images.metadata import COMPOSITE, TRAINED
from worker.job import TERMINAL, Job
from worker.job_events import JobEvent
from worker.store.threads import read_in_thread

MAX_PREVIEWS: Final = 4
"""Images of an answer that come with a preview; all come with a link."""

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""Sends a progress notification: progress, total and a text; only if the client wants them."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Departure:
    """Whether the client has left before its answer, and whether there was one."""

    has_left: bool = False
    has_answer: bool = False


@dataclass(frozen=True, slots=True)
class _ToolCalls:
    """The tools, with what the HTTP request says about its caller and its wishes."""

    request: Request
    caller: CurrentCaller
    submitter: Submitter
    submission: SubmissionContext
    store: Store
    settings: ServiceSettings
    signer: CallerUrlSigner
    loras: Loras
    metrics: Metrics
    departure: Departure = field(default_factory=Departure)

    async def run(self, name: str, arguments: Mapping[str, Any], report: Report) -> Answer:
        """Run a tool of the server; an error becomes an answer in plain words."""
        tool: Callable[[Mapping[str, Any], Report], Awaitable[Answer]] = {
            "generate_image": self._generate_image,
            "get_job": self._get_job,
            "cancel_job": self._cancel_job,
            "list_presets": self._list_presets,
        }[name]
        try:
            answer = await tool(arguments, report)
        except Exception as exc:  # noqa: BLE001 - the package would send its text to the client
            request_id: str = self.request.state.request_id
            if isinstance(exc, RequestValidationError):
                problem = validation_problem(exc, request_id)
            else:
                problem = problem_response_for(exc, request_id)
            # The response may have begun, so the middleware cannot count it.
            self.metrics.count_problem(problem.kind.code)
            answer = Answer(plain_text(problem), is_error=True)
        self.departure.has_answer = True
        return answer

    def limits_left(self) -> dict[str, str]:
        """What is left of the key's limits, as the headers of other APIs say it."""
        return limit_headers(getattr(self.request.state, "key_limits", []))

    async def _generate_image(self, arguments: Mapping[str, Any], report: Report) -> Answer:
        body = await self._validate(arguments)
        # A client that leaves now ends the call, but only after the job is accepted or refused.
        with anyio.CancelScope(shield=True):
            job = await self.submitter.submit(body, self.submission, is_waiting=True)
        self.submission.log_accepted(job)
        seconds = self.submission.wait_seconds
        if seconds is None:
            seconds = min(self.settings.sync_wait_seconds, LONGEST_WAIT_SECONDS)
        try:
            job = await self._wait(job, seconds, report)
        except asyncio.CancelledError:
            # Also when the server stops; then the job continues.
            if self.departure.has_left and self.submission.is_cancelled_on_disconnect:
                cancel_in_background(self.submitter.queue, job.id)
            raise
        has_failed = job.status in ("failed", "cancelled")
        return await self._answer(job, is_error=has_failed)

    async def _validate(self, arguments: Mapping[str, Any]) -> GenerationRequest:
        wrong: list[Any] = [*unknown_fields(arguments)]
        fields = {name: value for name, value in arguments.items() if name not in LEFT_OUT}
        try:
            body = await self.submitter.validate(fields)
        except RequestValidationError as exc:
            raise RequestValidationError([*exc.errors(), *wrong]) from exc
        if wrong:
            raise RequestValidationError(wrong)
        return body

    async def _get_job(self, arguments: Mapping[str, Any], report: Report) -> Answer:
        wanted = read_arguments(WaitArguments, arguments)
        job = await self.submitter.queue.get(wanted.job_id)
        if wanted.wait_seconds and job.status not in TERMINAL:
            seconds = min(wanted.wait_seconds, self.settings.max_wait_seconds)
            job = await self._wait(job, seconds, report)
        return await self._answer(job)

    async def _cancel_job(self, arguments: Mapping[str, Any], _: Report) -> Answer:
        wanted = read_arguments(JobArguments, arguments)
        job = await self.submitter.queue.cancel(wanted.job_id)
        if job.status in TERMINAL:
            return Answer(f"Job {job.id} is cancelled.")
        return Answer(f"Job {job.id} stops within one step.")

    async def _list_presets(self, arguments: Mapping[str, Any], _: Report) -> Answer:
        read_arguments(NoArguments, arguments)
        card = self.submitter.card
        loras = await self.loras.descriptions(card, self.caller.limits.loras)
        return Answer(describe_presets(card, loras))

    async def _wait(self, job: Job, seconds: float, report: Report) -> Job:
        """The latest state of the job when it ends, at most `seconds` later."""
        queue = self.submitter.queue
        # The job is accepted: without Redis the answer is the job as it was.
        with suppress(QueueUnavailable):
            with anyio.move_on_after(seconds):
                await report(0, job.progress.steps, f"job {job.id} is {job.status}")
                reported = 0.0
                async with aclosing(queue.event_pages(job.id)) as pages:
                    async for page in pages:
                        for step, steps in map(_progress, page):
                            # A retried job starts again, but progress must only grow.
                            if step > reported:
                                reported = step
                                await report(step, steps, f"step {step:.0f} of {steps:.0f}")
            return await queue.get(job.id)
        return job

    async def _answer(self, job: Job, *, is_error: bool = False) -> Answer:
        images = [await self._link(job, index) for index in range(len(job.images))]
        return Answer(describe_job(job, images), images, is_error)

    async def _link(self, job: Job, index: int) -> ImageLink:
        image, preview = job.images[index], None
        mark = COMPOSITE if job.request.init_image else TRAINED
        if index < MAX_PREVIEWS:
            # The link stays without a preview: the image has expired, or the store is away.
            with suppress(WorkerError, OSError):
                file = await read_in_thread(self.store.read, image.name)
                preview = await make_preview(file, None if job.request.metadata == "none" else mark)
        return ImageLink(self.signer.url(image.url), image.name, image.bytes, preview)


def _progress(event: JobEvent) -> tuple[float, float]:
    """Step and steps of a progress event; zeros for all others."""
    if event.event != "progress":
        return 0, 0
    step, steps = event.data.get("step"), event.data.get("steps")
    if not isinstance(step, int | float) or not isinstance(steps, int | float):
        return 0, 0  # of a newer release
    return step, steps


async def _tool_calls(
    request: Request,
    caller: CurrentCaller,
    submitter: Submitter,
    submission: SubmissionContext,
    store: Store,
    settings: ServiceSettings,
    signer: CallerUrlSigner,
    loras: Loras,
    metrics: Metrics,
) -> _ToolCalls:
    return _ToolCalls(
        request, caller, submitter, submission, store, settings, signer, loras, metrics
    )


ToolCalls = Annotated[_ToolCalls, Depends(_tool_calls)]
"""Runs the tools for the caller of this HTTP request."""
