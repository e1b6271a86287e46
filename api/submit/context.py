"""What all ways to submit a job share: their headers, and the answer once the job is accepted.

Knows no request bodies.
"""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from pydantic import AfterValidator

from api.http.schemas import JobView, job_view
from api.submit.dependencies import BaseUrl, Queue, ServiceSettings
from api.submit.disconnect import wait_unless_disconnected
from worker.errors import QueueUnavailable
from worker.job import TERMINAL, Job
from worker.queue.job_queue import JobQueue

log = logging.getLogger(__name__)

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]+)"?\s*(?:[,;]|$)', re.IGNORECASE)
_SPAN = re.compile(r"(?:([0-9]{1,2})h)?(?:([0-9]{1,4})m)?(?:([0-9]{1,5})s?)?")
_LONGEST_SPAN = 86_400
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def parse_prefer_wait(prefer: str | None, limit: float) -> float | None:
    """How long `Prefer: wait=N` (RFC 7240) asks to wait, at most `limit`; None if it does not."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), limit)


def parse_duration(text: str) -> int:
    """The seconds of `90s`, `5m`, `1h30m` or a bare number of seconds.

    Raises:
        ValueError: it is none of these, 0, or more than a day.
    """
    match = _SPAN.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 1 <= total <= _LONGEST_SPAN:
        raise ValueError("a time such as 90s, 5m or 1h30m is needed, from 1s to 24h")
    return total


@dataclass(frozen=True, slots=True)
class _SubmissionContext:
    """One exchange that may make a job; a broken trace parent is ignored, as its standard says."""

    idempotency_key: str | None
    traceparent: str | None
    wait: float | None
    cancel_after: float | None
    is_cancelled_on_disconnect: bool
    request: Request
    response: Response
    queue: JobQueue
    base_url: str

    def log(self, job: Job) -> None:
        """Say which exchange made the job."""
        log.info("job=%s event=accepted request=%s", job.id, self.request.state.request_id)

    async def answer(self, job: Job) -> JobView:
        """The accepted job: 202 as it is now, or 200 where it ends while the client waits."""
        self.log(job)
        if self.wait is not None:
            self.response.headers["Preference-Applied"] = f"wait={self.wait:.0f}"
            # The job is accepted whatever becomes of the waiting.
            with suppress(QueueUnavailable):
                job = await self.wait_for(job, self.wait)
            if job.status in TERMINAL:
                self.response.status_code = 200
        self.response.headers["Location"] = f"/jobs/{job.id}"
        return job_view(job, self.base_url)

    async def wait_for(self, job: Job, seconds: float) -> Job:
        """The job when it has ended or the time is over; leaving ends it where that was asked for.

        Raises:
            QueueUnavailable: Redis is away; the job goes on.
        """
        if self.is_cancelled_on_disconnect:
            return await wait_unless_disconnected(self.request, self.queue, job, seconds=seconds)
        return await self.queue.wait(job.id, seconds)


def _is_span(text: str) -> str:
    parse_duration(text)
    return text


async def _submission(
    request: Request,
    response: Response,
    queue: Queue,
    settings: ServiceSettings,
    base_url: BaseUrl,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The same key and request give the same job; another request is refused.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N`: answer when the job is done, or after N seconds."),
    ] = None,
    traceparent: Annotated[str | None, Header(description="W3C trace context.")] = None,
    cancel_after: Annotated[
        str | None,
        AfterValidator(_is_span),
        Header(
            description="Cancel the job if it has not ended after this time: `90s`, `5m`, `1h30m`.",
            examples=["90s"],
            json_schema_extra={"pattern": f"^{_SPAN.pattern}$"},
        ),
    ] = None,
    cancel_on_disconnect: Annotated[
        bool,
        Query(description="Cancel the job if the client leaves while it waits (`Prefer: wait`)."),
    ] = False,
) -> _SubmissionContext:
    is_trace = traceparent is not None and _TRACEPARENT.fullmatch(traceparent)
    return _SubmissionContext(
        idempotency_key=idempotency_key,
        traceparent=traceparent if is_trace else None,
        wait=parse_prefer_wait(prefer, settings.max_wait_seconds),
        cancel_after=None if cancel_after is None else parse_duration(cancel_after),
        is_cancelled_on_disconnect=cancel_on_disconnect,
        request=request,
        response=response,
        queue=queue,
        base_url=base_url,
    )


SubmissionContext = Annotated[_SubmissionContext, Depends(_submission)]
