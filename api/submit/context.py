"""Reads the headers of a submission and answers it with the accepted job."""

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from pydantic import AfterValidator

from api.http.job_schemas import job_view
from api.submit.dependencies import base_url, owned_queue
from api.submit.disconnect import cancel_abandoned_job, unless_disconnected
from worker.errors import QueueUnavailable
from worker.job import TERMINAL, Job
from worker.queue.job_queue import JobQueue

log = logging.getLogger(__name__)

_PREFER_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]+)"?\s*(?:[,;]|$)', re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]{1,2})h)?(?:([0-9]{1,4})m)?(?:([0-9]{1,5})s?)?")
_MAX_DURATION_SECONDS = 86_400
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def parse_prefer_wait(prefer: str | None, limit: float) -> float | None:
    """Seconds that `Prefer: wait=N` (RFC 7240) asks for, at most `limit`; None if absent."""
    match = _PREFER_WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), limit)


def parse_duration(text: str) -> int:
    """Seconds of `90s`, `5m`, `1h30m` or a plain number of seconds.

    Raises:
        ValueError: another form, zero, or more than a day.
    """
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 1 <= total <= _MAX_DURATION_SECONDS:
        raise ValueError("expected a duration from 1s to 24h, such as 90s, 5m or 1h30m")
    return total


@dataclass(frozen=True, slots=True)
class _SubmissionContext:
    """What the headers of one submission ask for, and how to answer it."""

    idempotency_key: str | None
    traceparent: str | None
    wait_seconds: float | None
    cancel_after: float | None
    is_cancelled_on_disconnect: bool
    request: Request
    response: Response
    queue: JobQueue
    base_url: str

    def log_accepted(self, job: Job) -> None:
        """Log the job together with the request id."""
        log.info("job=%s event=accepted request=%s", job.id, self.request.state.request_id)

    async def answer(self, job: Job) -> Response:
        """Answer 202 with the accepted job, or 200 if it ends during `Prefer: wait`."""
        self.log_accepted(job)
        status, headers = 202, {"Location": f"/jobs/{job.id}"}
        if self.wait_seconds is not None:
            headers["Preference-Applied"] = f"wait={self.wait_seconds:.0f}"
            # The job is accepted: without Redis the answer is the job as it was.
            with suppress(QueueUnavailable):
                job = await self.wait_for(job, self.wait_seconds)
            if job.status in TERMINAL:
                status = 200
        body = job_view(job, self.base_url).model_dump_json()
        return Response(body, status, headers, media_type="application/json")

    async def wait_for(
        self,
        job: Job,
        seconds: float,
        *,
        on_disconnect: Callable[[Job], Awaitable[None]] | None = None,
    ) -> Job:
        """Wait until the job ends, at most `seconds`; returns its latest state.

        A disconnect ends the waiting. It cancels the job if the client asked for it; otherwise
        `on_disconnect` is called.

        Raises:
            QueueUnavailable: Redis does not answer; the job is not affected.
        """
        found = await unless_disconnected(self.request, self.queue.wait(job.id, seconds))
        if found is not None:
            return found
        if self.is_cancelled_on_disconnect:
            return await cancel_abandoned_job(self.queue, job.id)
        if on_disconnect is not None:
            await on_disconnect(job)
        return job


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


async def _submission_context(
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Makes retries safe: the same key and request return the same job; the "
            "same key with another request is refused.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N`: answer when the job ends, but after at most N seconds."),
    ] = None,
    traceparent: Annotated[
        str | None, Header(description="W3C trace context; an invalid value is ignored.")
    ] = None,
    cancel_after: Annotated[
        str | None,
        AfterValidator(_check_duration),
        Header(
            description="Cancel the job if it has not ended after this time: `90s`, `5m`, `1h30m`.",
            examples=["90s"],
            json_schema_extra={"pattern": f"^{_DURATION.pattern}$"},
        ),
    ] = None,
    cancel_on_disconnect: Annotated[
        bool,
        Query(description="Cancel the job if the client disconnects during `Prefer: wait`."),
    ] = False,
) -> _SubmissionContext:
    is_valid_trace = traceparent is not None and _TRACEPARENT.fullmatch(traceparent)
    return _SubmissionContext(
        idempotency_key=idempotency_key,
        traceparent=traceparent if is_valid_trace else None,
        wait_seconds=parse_prefer_wait(prefer, request.state.settings.max_wait_seconds),
        cancel_after=None if cancel_after is None else parse_duration(cancel_after),
        is_cancelled_on_disconnect=cancel_on_disconnect,
        request=request,
        response=response,
        queue=await owned_queue(request),
        base_url=await base_url(request),
    )


SubmissionContext = Annotated[_SubmissionContext, Depends(_submission_context)]
