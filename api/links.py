"""`POST /jobs/{id}/links`: URLs of a job that a browser can read without sending a header."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api import link_tokens
from api.errors import responses
from api.jobs import JobId
from api.schemas import JobLinks, absolute
from api.state import BaseUrl, CurrentCaller, Keys, Queue, ServiceSettings

router = APIRouter(tags=["jobs"])


@dataclass(frozen=True, slots=True)
class _Signer:
    """Makes links of one caller, all good until the same moment."""

    owner: str
    secret: str | None
    base_url: str
    until: float

    def url(self, path: str) -> str:
        """An absolute URL of `path`; where the service asks for no key it needs no token."""
        url = absolute(path, self.base_url)
        if not self.owner or self.secret is None or not path.startswith("/"):
            return url
        token = link_tokens.token(path, self.owner, self.secret, until=self.until)
        return f"{url}?token={token}"


async def _signer(
    caller: CurrentCaller, keys: Keys, base_url: BaseUrl, settings: ServiceSettings
) -> _Signer:
    until = time.time() + settings.signed_url_seconds
    return _Signer(caller.owner, keys.link_secret, base_url, until)


Signer = Annotated[_Signer, Depends(_signer)]
"""Makes links that need no header, in the name of this exchange's caller."""


@router.post(
    "/jobs/{job_id}/links",
    operation_id="signJobLinks",
    summary="Links for a browser",
    responses=responses(404, 410, 422, 503),
)
async def sign_job_links(
    job_id: JobId, queue: Queue, signer: Signer, response: Response
) -> JobLinks:
    """URLs of the job's events and images that need no header, for EventSource and <img>.

    Each is good for reading that one path, as long as the key is not revoked. Whoever sees such a
    URL can use it: keep it out of logs and pages of others.
    """
    job = await queue.get(job_id)
    response.headers["Cache-Control"] = "no-store"
    return JobLinks(
        events=signer.url(f"/jobs/{job.id}/events"),
        images=[signer.url(image.url) for image in job.images],
        expires_at=datetime.fromtimestamp(int(signer.until), UTC),
    )
