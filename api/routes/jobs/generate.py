"""`POST /generate`: from a body that may leave things open to an accepted job.

Knows neither Redis nor how a picture is made.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from api.http.content_type import require_json
from api.http.errors import responses
from api.http.schemas import JobView
from api.submit.context import SubmissionContext
from api.submit.dependencies import Loras
from api.submit.dry_run import Plan
from api.submit.submitter import Submitter
from model.request import GenerationRequest


async def _refresh_loras(request: Request, loras: Loras) -> None:
    """Look for new LoRAs before names are checked; bodies without the field do not wait for it."""
    if b'"loras"' in await request.body():
        await loras.refresh()


def routes(request_model: type[GenerationRequest]) -> APIRouter:
    """The route, whose body's type has the card's presets, samplers and limits."""
    router = APIRouter(tags=["generation"])

    @router.post(
        "/generate",
        operation_id="generate",
        status_code=202,
        response_model=JobView,
        summary="Submit a generation",
        dependencies=[Depends(require_json), Depends(_refresh_loras)],
        responses={
            200: {
                "model": JobView | Plan,
                "description": "Finished within the time of `Prefer: wait`; or, with `dry_run`, "
                "what the request would become.",
            },
            202: {"description": "Accepted; `Location` is the job."},
            **responses(400, 403, 413, 415, 422, 429, 503),
        },
    )
    async def generate(
        body: Annotated[request_model, Body()],  # type: ignore[valid-type]
        submitter: Submitter,
        submission: SubmissionContext,
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
        if dry_run:
            plan = await submitter.plan(body)
            return Response(plan.model_dump_json(), media_type="application/json")
        return await submission.answer(await submitter.submit(body, submission))

    return router
