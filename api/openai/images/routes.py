"""Routes `POST /v1/images/generations` and `POST /v1/images/edits`."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Request, Response

from api.http.request_body import require_json
from api.openai.call import ImagesCall
from api.openai.errors import responses
from api.openai.images.edit_body import read_edit
from api.openai.images.parameters import ImagesBody, OpenAIRequest, parse_request
from api.openai.images.request_docs import SUCCESS
from api.openai.images.responses import images_of, usage_of
from api.openai.images.streaming import StreamContext, event_lines
from api.submit.dependencies import RequestImages
from api.submit.submission_route import SubmissionRoute
from api.submit.wait import read_images
from worker.job import Job

_ERRORS: Final = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)

router = APIRouter(prefix="/v1/images", tags=["openai"], route_class=SubmissionRoute)


async def _answer(call: ImagesCall, raw: ImagesBody, kind: str) -> Response:
    """Submit a job, then wait for its images or stream its events.

    `kind` is the prefix of event types.
    """
    parsed = await parse_request(raw, call.submitter, call.settings.openai_models)
    job = await call.submit(parsed.body, parsed.names)
    if parsed.parameters.stream:
        return _stream(call, job, parsed, kind)
    return await _images(call, await call.wait(job), parsed)


async def _images(call: ImagesCall, job: Job, parsed: OpenAIRequest) -> Response:
    files = None if parsed.parameters.has_urls else await read_images(job, call.store)

    def body() -> str:
        images = images_of(
            job,
            files,
            url_of=call.signer.url,
            quality=parsed.quality,
            usage=usage_of(job, call.submitter.card, call.tokenizers),
            notes=parsed.notes,
        )
        return images.model_dump_json()

    content = await asyncio.to_thread(body)  # encodes megabytes of base64
    return call.answer(content, parsed.body, job)


def _stream(call: ImagesCall, job: Job, parsed: OpenAIRequest, kind: str) -> Response:
    context = StreamContext(
        queue=call.submitter.queue,
        store=call.store,
        card=call.submitter.card,
        tokenizers=call.tokenizers,
        request_id=call.request.state.request_id,
        kind=kind,
        quality=parsed.quality,
        partial_images=parsed.parameters.partial_images,
    )
    return call.stream(event_lines(job, context), parsed.body, job)


@router.post(
    "/generations",
    operation_id="openaiGenerateImages",
    summary="Generate images (OpenAI API)",
    response_class=Response,
    dependencies=[Depends(require_json)],
    responses={200: SUCCESS, **responses(*_ERRORS)},
)
async def generate_images(raw: Annotated[dict[str, Any], Body()], call: ImagesCall) -> Response:
    """Submit a job and wait for its images. `X-Job-Id` and `Location` name the job.

    If the job takes too long, the response is 504 and the job continues. With `stream`, the
    response is a stream of events: `image_generation.partial_image`,
    `image_generation.completed` or `error`. Fields of `POST /generate` are accepted as well.
    """
    return await _answer(call, ImagesBody(raw), "image_generation")


@router.post(
    "/edits",
    operation_id="openaiEditImage",
    summary="Edit an image (OpenAI API)",
    response_class=Response,
    responses={200: SUCCESS, **responses(*_ERRORS)},
)
async def edit_image(request: Request, call: ImagesCall, input_images: RequestImages) -> Response:
    """Like `generations`, but starts from an image. Event types begin with `image_edit`.

    The body is a form, or JSON with `images`. URLs of other sites are never fetched.
    Transparent areas of `mask` are repainted; the rest of the image stays bit for bit the same.
    Without a mask, the whole image changes; `strength` says how much.
    """
    return await _answer(call, await read_edit(request, input_images), "image_edit")
