"""`POST /verify`: checks where an uploaded image comes from. Stores nothing."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from api.http.error_handlers import problem_responses
from api.http.errors import MalformedForm
from api.http.job_schemas import job_view
from api.http.request_body import is_form, read_parts
from api.routes.images.evidence import Verifier
from api.routes.images.verification import Verification
from api.submit.dependencies import BaseUrl, Queue, ServiceSettings, from_state
from api.submit.submission_route import SubmissionRoute

_MAX_FIELDS = 8
_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"image": {"type": "string", "format": "binary"}},
        "required": ["image"],
    }
}
_BODY = {
    "description": "The image with any `Content-Type`, or a form with the image as first file.",
    "required": True,
    "content": {
        "multipart/form-data": _FORM,
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}

router = APIRouter(tags=["images"], route_class=SubmissionRoute)


@router.post(
    "/verify",
    operation_id="verifyImage",
    response_model=Verification,
    summary="Verify the origin of an image",
    responses=problem_responses(400, 403, 413, 422, 429, 503),
    openapi_extra={"requestBody": _BODY},
)
async def verify_image(
    request: Request,
    verifier: Annotated[Verifier, from_state("verifier")],
    queue: Queue,
    settings: ServiceSettings,
    base_url: BaseUrl,
) -> Response:
    """Check whether a job of the caller made an image, what its file claims, and who signed it.

    The image is not stored. A file without marks and signatures proves nothing: any program that
    saves an image again may remove them.
    """
    evidence = await verifier.read(await _image(request))
    maker = await queue.find_by_image(evidence.name)
    job = job_view(maker, base_url) if maker else None
    found = evidence.verify(job, kept_seconds=settings.result_ttl_seconds)
    return Response(found.model_dump_json(), media_type="application/json")


async def _image(request: Request) -> bytes:
    """The image file in the body."""
    if not is_form(request):
        return await request.body()
    parts = await read_parts(request, max_files=1, max_fields=_MAX_FIELDS)
    files = [part for _, part in parts if isinstance(part, bytes)]
    if not files:
        raise MalformedForm("the form contains no file")
    return files[0]
