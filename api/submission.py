"""What all ways to submit a job share: their headers, and the answer once the job is accepted.

Knows no request bodies.
"""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from api.schemas import JobView, job_view
from api.state import BaseUrl, Queue, ServiceSettings
from worker.errors import QueueUnavailable
from worker.job import TERMINAL, Job
from worker.queue import JobQueue

log = logging.getLogger(__name__)

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d+)"?\s*(?:[,;]|$)', re.IGNORECASE)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def wait_seconds(prefer: str | None, limit: float) -> float | None:
    """How long `Prefer: wait=N` (RFC 7240) asks to wait, at most `limit`; None if it does not."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), limit)


@dataclass(frozen=True, slots=True)
class _Submission:
    """One exchange that may make a job; a broken trace parent is ignored, as its standard says."""

    idempotency_key: str | None
    traceparent: str | None
    wait: float | None
    request_id: str
    response: Response
    queue: JobQueue
    base_url: str

    async def answer(self, job: Job) -> JobView:
        """The accepted job: 202 as it is now, or 200 where it ends while the client waits."""
        log.info("job=%s event=accepted request=%s", job.id, self.request_id)
        if self.wait is not None:
            self.response.headers["Preference-Applied"] = f"wait={self.wait:.0f}"
            # The job is accepted whatever becomes of the waiting.
            with suppress(QueueUnavailable):
                job = await self.queue.wait(job.id, self.wait)
            if job.status in TERMINAL:
                self.response.status_code = 200
        self.response.headers["Location"] = f"/jobs/{job.id}"
        return job_view(job, self.base_url)


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
) -> _Submission:
    is_trace = traceparent is not None and _TRACEPARENT.fullmatch(traceparent)
    return _Submission(
        idempotency_key=idempotency_key,
        traceparent=traceparent if is_trace else None,
        wait=wait_seconds(prefer, settings.max_wait_seconds),
        request_id=request.state.request_id,
        response=response,
        queue=queue,
        base_url=base_url,
    )


Submission = Annotated[_Submission, Depends(_submission)]
