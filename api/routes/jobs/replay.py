"""`POST /jobs/{job_id}/replay`: runs a job again and compares the images."""

from fastapi import APIRouter, Response

from api.http.error_handlers import problem_responses
from api.http.job_schemas import JobView
from api.routes.jobs.jobs import JobId
from api.submit.context import SubmissionContext
from api.submit.submission_route import SubmissionRoute
from api.submit.submitter import Submitter

router = APIRouter(tags=["generation"], route_class=SubmissionRoute)


@router.post(
    "/jobs/{job_id}/replay",
    operation_id="replayJob",
    status_code=202,
    response_model=JobView,
    summary="Run a job again and compare",
    responses={
        200: {"model": JobView, "description": "The job ended within `Prefer: wait`."},
        202: {"description": "Accepted; `Location` is the URL of the new job."},
        **problem_responses(403, 404, 409, 410, 422, 429, 503),
    },
)
async def replay_job(
    job_id: JobId, submitter: Submitter, submission: SubmissionContext
) -> Response:
    """Run the resolved request of a succeeded job again, with `deterministic`.

    `matches` of the new job is null until it succeeds, and then whether every image has the
    SHA-256 of the original. Images may differ if the original was not deterministic or had
    another recipe; `warnings` says so.
    """
    return await submission.answer(await submitter.replay(job_id, submission))
