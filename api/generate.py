"""`POST /generate`: from a body that may leave things open to an accepted job.

Knows neither Redis nor how a picture is made.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from api.errors import UnsupportedMediaType, responses
from api.plan import Advice, Plan, advise, make_plan
from api.schemas import JobView
from api.state import Loras, PromptTokenizers, Queue, RequestPictures
from api.submission import Submission
from api.webhook_schemas import submission_type, webhook_of
from model.card import Card
from model.request import MAX_SEED, GenerationRequest, ResolvedRequest, resolve
from worker.errors import QueueUnavailable
from worker.forecast import Forecast
from worker.settings import Settings


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


async def _planned(
    body: GenerationRequest, resolved: ResolvedRequest, advice: Advice, queue: Queue
) -> Response:
    """What the request would become; without Redis only its place and time are unknown."""
    times = Forecast()
    with suppress(QueueUnavailable):
        times = await queue.forecast(resolved)
    plan = make_plan(resolved, advice, times, seed=body.seed)
    return Response(plan.model_dump_json(), media_type="application/json")


async def _refresh_loras(request: Request, loras: Loras) -> None:
    """Look for new LoRAs before names are checked; bodies without the field do not wait for it."""
    if b'"loras"' in await request.body():
        await loras.refresh()


def routes(
    card: Card, settings: Settings, lora_names: Callable[[], Collection[str]] = tuple
) -> APIRouter:
    """The route with this card's presets, samplers and limits in its body's type.

    `lora_names` tells the LoRAs that there are at the moment.
    """
    router = APIRouter(tags=["generation"])
    # A value, because the card is known only now; the function below needs it as an annotation.
    CardRequest = submission_type(card, settings, lora_names)  # noqa: N806

    @router.post(
        "/generate",
        operation_id="generate",
        status_code=202,
        response_model=JobView,
        summary="Submit a generation",
        dependencies=[Depends(_require_json), Depends(_refresh_loras)],
        responses={
            200: {
                "model": JobView | Plan,
                "description": "Finished within the time of `Prefer: wait`; or, with `dry_run`, "
                "what the request would become.",
            },
            202: {"description": "Accepted; `Location` is the job."},
            **responses(400, 413, 415, 422, 429, 503),
        },
    )
    async def generate(
        body: Annotated[CardRequest, Body()],  # type: ignore[valid-type]
        queue: Queue,
        pictures: RequestPictures,
        submission: Submission,
        tokenizers: PromptTokenizers,
        loras: Loras,
        dry_run: Annotated[
            bool,
            Query(
                description="Queue nothing; tell what the request would become: `Plan`.",
                examples=[True],
            ),
        ] = False,
    ) -> JobView | Response:
        """Accept a request.

        Open fields are filled from the card and a seed is drawn, so that the answer's `request`
        says exactly which picture will be made.
        """
        hashes = await loras.hashes(body)
        inputs, changes = await pictures.take(body, is_kept=not dry_run)
        seed = secrets.randbelow(MAX_SEED + 1)
        resolved = resolve(body, card, seed=seed, inputs=inputs, lora_hashes=hashes)
        about_loras = tuple(loras.warnings(resolved, card))
        advice = await asyncio.to_thread(advise, body, resolved, card, tokenizers, about_loras)
        advice = advice._replace(warnings=(*changes, *advice.warnings))
        if dry_run:
            return await _planned(body, resolved, advice, queue)
        job = await queue.admit(
            resolved,
            warnings=advice.warnings,
            idempotency_key=submission.idempotency_key,
            fingerprint=await asyncio.to_thread(_fingerprint, body),
            traceparent=submission.traceparent,
            webhook=webhook_of(body, submission.base_url),
            cancel_after=submission.cancel_after,
        )
        return await submission.answer(job)

    return router
