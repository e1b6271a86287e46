"""Reads the headers of a submission and answers it with the accepted job."""

import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from pydantic import AfterValidator

from api.auth.caller import client_address
from api.http.job_schemas import job_view
from api.submit.dependencies import base_url, owned_queue
from api.submit.disconnect import cancel_abandoned_job, unless_disconnected
from api.submit.handover import HandedOver
from worker.errors import QueueUnavailable
from worker.job import TERMINAL, Job
from worker.queue.client_index import WaitingCall
from worker.queue.job_queue import JobQueue

log = logging.getLogger(__name__)

_PREFER_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]+)"?\s*(?:[,;]|$)', re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]{1,2})h)?(?:([0-9]{1,4})m)?(?:([0-9]{1,5})s?)?")
_MAX_DURATION_SECONDS = 86_400
_ADDRESS_SECONDS = 600
"""How long an address is taken for the same client."""
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


@dataclass(slots=True)
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
    call: WaitingCall | None = None

    def wait_as(self, fingerprint: str) -> WaitingCall | None:
        """Make this a call that waits for the images of the request with this fingerprint.

        If it ends without them, the next call with the same path and request of the same caller
        finds its job: of the same key, or of the same address within ten minutes. None if the
        client says by an idempotency key what belongs together, or cannot be told from others.
        """
        owner: str = self.request.state.caller.owner
        address = client_address(self.request)
        if self.idempotency_key is not None or not (owner or address):
            return None
        caller = owner or f"@{_digest(f'{address}')}"
        settings = self.request.state.settings
        seconds = settings.idempotency_ttl_seconds if owner else _ADDRESS_SECONDS
        like = _digest(f"{self.request.scope['path']} {fingerprint}")
        self.call = self.queue.waiting_call(caller, like, seconds)
        return self.call

    async def end_call(self, *, is_served: bool) -> None:
        """Record whether the client has its images; only the first end of a call counts."""
        if self.call is not None:
            with suppress(QueueUnavailable):
                await self.call.end(is_served=is_served)

    def hand_over(
        self, content: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HandedOver:
        """The response with the result; the call has ended well when the client has taken it."""
        return HandedOver(
            content, status, headers, on_served=partial(self.end_call, is_served=True)
        )

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
        return self.hand_over(body, status, headers)

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
) -> AsyncGenerator[_SubmissionContext]:
    is_valid_trace = traceparent is not None and _TRACEPARENT.fullmatch(traceparent)
    submission = _SubmissionContext(
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
    try:
        yield submission
    finally:
        await submission.end_call(is_served=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


SubmissionContext = Annotated[_SubmissionContext, Depends(_submission_context)]
