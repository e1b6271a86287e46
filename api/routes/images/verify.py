"""`POST /verify`: what is known of an image that a client sends. Keeps nothing of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from api.http.errors import MalformedForm, responses
from api.http.multipart import is_form, read_parts
from api.http.schemas import job_view
from api.routes.images.evidence import Verification, Verifier
from api.submit.dependencies import BaseUrl, Queue, ServiceSettings, from_state

_MAX_FIELDS = 8
_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {"image": {"type": "string", "format": "binary"}},
        "required": ["image"],
    }
}
_BODY = {
    "description": "One image: as it is, of any `Content-Type`, or as the first file of a form.",
    "required": True,
    "content": {
        "multipart/form-data": _FORM,
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}

router = APIRouter(tags=["images"])


@router.post(
    "/verify",
    operation_id="verifyImage",
    response_model=Verification,
    summary="What is known of an image",
    responses=responses(400, 413, 422, 503),
    openapi_extra={"requestBody": _BODY},
)
async def verify_image(
    request: Request,
    verifier: Annotated[Verifier, from_state("verifier")],
    queue: Queue,
    settings: ServiceSettings,
    base_url: BaseUrl,
) -> Response:
    """Whether an image is one of the caller's own, what its file says, and what of that holds.

    Nothing of the image is kept. A file without marks and signatures tells nothing: any program
    that saves a picture anew may remove them.
    """
    evidence = await verifier.read(await _image(request))
    maker = await queue.find_by_image(evidence.name)
    job = job_view(maker, base_url) if maker else None
    found = evidence.verify(job, kept_seconds=settings.result_ttl_seconds)
    return Response(found.model_dump_json(), media_type="application/json")


async def _image(request: Request) -> bytes:
    """The file in the body; its size is limited like that of every body."""
    if not is_form(request):
        return await request.body()
    parts = await read_parts(request, max_files=1, max_fields=_MAX_FIELDS)
    files = [part for _, part in parts if isinstance(part, bytes)]
    if not files:
        raise MalformedForm("the form has no file")
    return files[0]
