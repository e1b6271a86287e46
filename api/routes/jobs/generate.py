"""`POST /generate`: accepts a generation request as a job."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import Field

from api.http.error_handlers import problem_responses
from api.http.job_schemas import JobView
from api.http.request_body import require_json
from api.submit.context import SubmissionContext
from api.submit.dry_run import Plan
from api.submit.submission_route import SubmissionRoute
from api.submit.submitter import Submitter
from model.request import GenerationRequest


async def _refresh_loras(request: Request) -> None:
    """Scan for new LoRAs before the body is validated, if the body has any."""
    if b'"loras"' in await request.body():
        await request.state.loras.refresh()


def routes(request_model: type[GenerationRequest]) -> APIRouter:
    """The route; `request_model` has the card's presets, samplers and limits."""
    router = APIRouter(tags=["generation"], route_class=SubmissionRoute)

    @router.post(
        "/generate",
        operation_id="generate",
        status_code=202,
        response_model=JobView,
        summary="Generate images",
        dependencies=[Depends(require_json), Depends(_refresh_loras)],
        responses={
            200: {
                "model": Annotated[JobView | Plan, Field(discriminator="status")],
                "description": "The job ended within `Prefer: wait`; or, with `dry_run`, the plan.",
            },
            202: {"description": "Accepted; `Location` is the URL of the job."},
            **problem_responses(400, 403, 413, 415, 422, 429, 503),
        },
    )
    async def generate(
        body: Annotated[request_model, Body()],  # type: ignore[valid-type]
        submitter: Submitter,
        submission: SubmissionContext,
        dry_run: Annotated[
            bool,
            Query(
                description="Queue nothing and return a `Plan` of the request.",
                examples=[True],
            ),
        ] = False,
    ) -> Response:
        """Submit a request and get a job.

        Missing fields are filled from the card and a missing seed is drawn. `request` of the job
        has them all, and so determines the images.
        """
        if dry_run:
            plan = await submitter.plan(body)
            return Response(plan.model_dump_json(), media_type="application/json")
        is_waiting = submission.wait_seconds is not None
        job = await submitter.submit(body, submission, is_waiting=is_waiting)
        return await submission.answer(job)

    return router
