"""`POST /jobs/{job_id}/links`: signs URLs that browsers can read without a header."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from api.http.error_handlers import problem_responses
from api.http.job_schemas import JobLinks
from api.routes.jobs.jobs import JobId
from api.submit.dependencies import CallerUrlSigner, Queue

router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs/{job_id}/links",
    operation_id="signJobLinks",
    summary="Sign links for a browser",
    responses=problem_responses(404, 410, 422, 503),
)
async def sign_job_links(
    job_id: JobId, queue: Queue, signer: CallerUrlSigner, response: Response
) -> JobLinks:
    """Get URLs of the job's events and images that need no header, for EventSource and <img>.

    Each gives read access to one path until it expires or the key is revoked. Anybody who sees
    such a URL can use it: keep it out of logs and public pages.
    """
    job = await queue.get(job_id)
    response.headers["Cache-Control"] = "no-store"
    return JobLinks(
        events=signer.url(f"/jobs/{job.id}/events"),
        images=[signer.url(image.url) for image in job.images],
        expires_at=datetime.fromtimestamp(int(signer.until), UTC),
    )
