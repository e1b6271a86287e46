"""`POST /generate`: from a body that may leave things open to an accepted job.

Knows neither Redis nor how a picture is made.
"""

import hashlib
import re
import secrets
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request

from api.errors import UnsupportedMediaType, responses
from api.schemas import JobView
from api.state import Queue
from api.submission import Submission
from model.card import Card
from model.prompt import lint
from model.request import MAX_SEED, GenerationRequest, request_type, resolve
from worker.job import JobWarning


async def _require_json(request: Request) -> None:
    """Refuse a body of another type before its fields are looked at."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/(?:[^/\s]+\+)?json", media_type):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type or 'missing'}; send application/json"
        )


def _fingerprint(body: GenerationRequest) -> str:
    """The same for bodies that ask for the same; taken before a seed is drawn."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


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
        queue: Queue,
        submission: Submission,
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
            idempotency_key=submission.idempotency_key,
            fingerprint=_fingerprint(body),
            traceparent=submission.traceparent,
        )
        return await submission.answer(job)

    return router
