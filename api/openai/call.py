"""One call of any endpoint that makes images: submits the job, waits for it, answers."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Response

from api.http.job_schemas import job_headers
from api.http.sse import EventStream
from api.openai.errors import openai_names
from api.submit.context import SubmissionContext
from api.submit.dependencies import (
    CallerUrlSigner,
    PromptTokenizers,
    ServiceSettings,
    Store,
)
from api.submit.disconnect import cancel_in_background
from api.submit.handover import HandedOver
from api.submit.submitter import Submitter
from api.submit.wait import wait_for_success
from model.request import GenerationRequest
from worker.job import Job


@dataclass(frozen=True, slots=True)
class _ImagesCall:
    """Turns one HTTP request into one job, whatever the endpoint makes of the images."""

    request: Request
    submitter: Submitter
    submission: SubmissionContext
    store: Store
    settings: ServiceSettings
    tokenizers: PromptTokenizers
    signer: CallerUrlSigner

    async def submit(self, body: GenerationRequest, names: Mapping[str, str]) -> Job:
        """Queue a job, or find the job of an earlier attempt of the same call.

        `names` are the client's names of fields, for errors; raises as `Submitter.submit`.
        """
        with openai_names(names):
            job = await self.submitter.submit(
                body, self.submission, is_waiting=True, attempt=self._retry_count()
            )
        self.submission.log_accepted(job)
        return job

    def _retry_count(self) -> int | None:
        """How many times the client has sent this call before; only official clients say so."""
        count = self.request.headers.get("x-stainless-retry-count", "")
        return int(count) if count.isascii() and count.isdigit() and len(count) < 4 else None

    async def wait(self, job: Job) -> Job:
        """Wait until the job has succeeded; raises as `wait_for_success`."""
        return await wait_for_success(job, self.submission, self.settings.sync_wait_seconds)

    def answer(self, content: str, body: GenerationRequest, job: Job) -> Response:
        """The JSON response of a call that ends with its images."""
        served = partial(self._end, body, job)
        return HandedOver(content, headers=job_headers(job), on_served=served)

    async def _end(self, body: GenerationRequest, job: Job) -> None:
        """The client has its images: neither a retry nor a call like this one finds the job."""
        await self.submission.end_call(is_served=True)
        await self.submitter.forget_attempts(body, job)

    def stream(
        self, events: AsyncGenerator[bytes], body: GenerationRequest, job: Job
    ) -> EventStream:
        """The response of a call that ends with events. A client that leaves may come back."""

        async def lines() -> AsyncGenerator[bytes]:
            async with aclosing(events):
                async for event in events:
                    yield event
            # Not reached if the client has disconnected: it may retry to get its images.
            await self._end(body, job)

        cancel = partial(cancel_in_background, self.submitter.queue, job.id)
        is_cancelled = self.submission.is_cancelled_on_disconnect
        response = EventStream(lines(), on_disconnect=cancel if is_cancelled else None)
        response.headers.update(job_headers(job))
        return response


async def _call(
    request: Request,
    submitter: Submitter,
    submission: SubmissionContext,
    store: Store,
    settings: ServiceSettings,
    tokenizers: PromptTokenizers,
    signer: CallerUrlSigner,
) -> _ImagesCall:
    return _ImagesCall(request, submitter, submission, store, settings, tokenizers, signer)


ImagesCall = Annotated[_ImagesCall, Depends(_call)]
"""The HTTP request as a call that makes images."""
