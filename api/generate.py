"""`POST /generate`: from a body that may leave things open to an accepted job.

Knows neither Redis nor how a picture is made.
"""

import hashlib
import logging
import re
import secrets
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Request, Response

from api.errors import UnsupportedMediaType, responses
from api.schemas import JobView, job_view
from api.state import BaseUrl, Queue, ServiceSettings
from model.card import Card
from model.prompt import lint
from model.request import MAX_SEED, GenerationRequest, request_type, resolve
from worker.errors import QueueUnavailable
from worker.job import TERMINAL, JobWarning

log = logging.getLogger(__name__)

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d+)"?\s*(?:[,;]|$)', re.IGNORECASE)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def _require_json(request: Request) -> None:
    """Refuse a body of another type before its fields are looked at."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/(?:[^/\s]+\+)?json", media_type):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type or 'missing'}; send application/json"
        )


def wait_seconds(prefer: str | None, limit: float) -> float | None:
    """How long `Prefer: wait=N` (RFC 7240) asks to wait, at most `limit`; None if it does not."""
    match = _WAIT.search(prefer or "")
    return None if match is None else min(float(match[1]), limit)


def _fingerprint(body: GenerationRequest) -> str:
    """The same for bodies that ask for the same; taken before a seed is drawn."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


def _trace(traceparent: str | None) -> str | None:
    """A W3C trace parent as the client sent it; a broken one is ignored, as the standard says."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


def routes(card: Card) -> APIRouter:
    """The route with this card's presets, samplers and limits in its body's type."""
    router = APIRouter(tags=["generation"])
    # A value, because the card is known only now; the function below needs it as an annotation.
    CardRequest = request_type(card)  # noqa: N806

    @router.post(
        "/generate",
        operation_id="generate",
        status_code=202,
        summary="Submit a generation",
        dependencies=[Depends(_require_json)],
        responses={
            200: {"model": JobView, "description": "Finished within the time of `Prefer: wait`."},
            202: {"description": "Accepted; `Location` is the job."},
            **responses(400, 413, 415, 422, 429, 503),
        },
    )
    async def generate(
        body: Annotated[CardRequest, Body()],  # type: ignore[valid-type]
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
                description="The same key and body give the same job; another body is refused.",
            ),
        ] = None,
        prefer: Annotated[
            str | None,
            Header(description="`wait=N`: answer when the job is done, or after N seconds."),
        ] = None,
        traceparent: Annotated[str | None, Header(description="W3C trace context.")] = None,
    ) -> JobView:
        """Accept a request.

        Open fields are filled from the card and a seed is drawn, so that the answer's `request`
        says exactly which picture will be made.
        """
        resolved = resolve(body, card, seed=secrets.randbelow(MAX_SEED + 1))
        job = await queue.admit(
            resolved,
            warnings=tuple(
                JobWarning(code=warning.code, detail=warning.detail)
                for warning in lint(resolved, card)
            ),
            idempotency_key=idempotency_key,
            fingerprint=_fingerprint(body),
            traceparent=_trace(traceparent),
        )
        log.info("job=%s event=accepted request=%s", job.id, request.state.request_id)
        seconds = wait_seconds(prefer, settings.max_wait_seconds)
        if seconds is not None:
            response.headers["Preference-Applied"] = f"wait={seconds:.0f}"
            # The job is accepted whatever becomes of the waiting.
            with suppress(QueueUnavailable):
                job = await queue.wait(job.id, seconds)
            if job.status in TERMINAL:
                response.status_code = 200
        view = job_view(job, base_url)
        response.headers["Location"] = f"/jobs/{job.id}"
        return view

    return router
