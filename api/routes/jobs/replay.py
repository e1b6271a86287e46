"""`POST /jobs/{id}/replay`: the same request once more, and whether the same picture comes out."""

from fastapi import APIRouter

from api.http.errors import responses
from api.http.schemas import JobView
from api.routes.jobs.jobs import JobId
from api.submit.context import SubmissionContext
from api.submit.submitter import Submitter

router = APIRouter(tags=["generation"])


@router.post(
    "/jobs/{job_id}/replay",
    operation_id="replayJob",
    status_code=202,
    summary="Run a job again and compare",
    responses={
        200: {"model": JobView, "description": "Finished within the time of `Prefer: wait`."},
        202: {"description": "Accepted; `Location` is the new job."},
        **responses(403, 404, 409, 410, 422, 429, 503),
    },
)
async def replay_job(job_id: JobId, submitter: Submitter, submission: SubmissionContext) -> JobView:
    """Carry out the resolved request of a succeeded job again, with `deterministic`.

    `matches` of the new job is null until it has succeeded, then whether every picture has the
    SHA-256 of the original's. A difference is possible where the original was not deterministic
    or was made under another recipe; `warnings` then says so.
    """
    return await submission.answer(await submitter.replay(job_id, submission))
