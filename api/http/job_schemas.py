"""Response bodies for jobs: a job with its links, a page of jobs, signed URLs."""

from datetime import datetime

from pydantic import Field

from api.http.response_model import ResponseModel
from worker.job import TERMINAL, Job, StoredImage


class Links(ResponseModel):
    """Absolute URLs of a job; `cancel` is null once the job has finished."""

    self: str
    events: str
    cancel: str | None


class JobLinks(ResponseModel):
    """Signed URLs: readable without an API key until `expires_at`."""

    events: str = Field(description="The job's event stream.")
    images: list[str] = Field(description="The images stored so far, in order.")
    expires_at: datetime = Field(description="An open stream continues after this time.")


class JobView(Job):
    """A job with absolute image URLs and links."""

    links: Links


class JobList(ResponseModel):
    """A page of the caller's jobs."""

    items: list[JobView] = Field(description="Newest first.")
    next: str | None = Field(description="`cursor` of the next page; null on the last page.")


def absolute(url: str, base_url: str) -> str:
    """Prepend `base_url` to a path; absolute URLs (those of a bucket) stay as they are."""
    return base_url + url if url.startswith("/") else url


def job_view(job: Job, base_url: str) -> JobView:
    """The job with absolute URLs; `base_url` has no trailing slash."""
    own_url = f"{base_url}/jobs/{job.id}"
    images = tuple(
        StoredImage(**{**dict(image), "url": absolute(image.url, base_url)}) for image in job.images
    )
    links = Links(
        self=own_url,
        events=f"{own_url}/events",
        cancel=None if job.status in TERMINAL else own_url,
    )
    return JobView(**{**dict(job), "images": images, "links": links})


def job_headers(job: Job) -> dict[str, str]:
    """Headers of a synchronous call that name its job."""
    return {"Location": f"/jobs/{job.id}", "X-Job-Id": job.id}
