"""Routes `txt2img` and `img2img`: run an A1111 request as a job and respond with its images."""

import asyncio
import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError

from api.a1111.errors import responses
from api.a1111.generation.request import (
    A1111Request,
    mask_blur_of,
    parse_request,
    to_a1111_names,
)
from api.a1111.generation.request_fields import ImageToImage, Processing, TextToImage
from api.a1111.generation.response import A1111Pictures, info_of
from api.a1111.jobs.client_identity import ClientIdentity, CurrentClient
from api.a1111.leniency import require_json_if_declared
from api.http.job_schemas import job_headers
from api.submit.context import SubmissionContext
from api.submit.dependencies import Loras, RequestImages, ServiceCard, ServiceSettings, Store
from api.submit.submission_route import SubmissionRoute
from api.submit.submitter import Submitter
from api.submit.wait import read_images, wait_for_success
from worker.errors import QueueUnavailable
from worker.job import Job

router = APIRouter(
    prefix="/sdapi/v1",
    tags=["a1111"],
    strict_content_type=False,
    route_class=SubmissionRoute,
)
_JSON = [Depends(require_json_if_declared)]

_ERRORS = responses(400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)
_IMAGE_FIELDS = frozenset({"init_images", "mask"})


@dataclass(frozen=True, slots=True)
class _GenerationHandler:
    """Handles one call of either route."""

    request: Request
    submitter: Submitter
    submission: SubmissionContext
    client: ClientIdentity
    card: ServiceCard
    settings: ServiceSettings
    loras: Loras
    input_images: RequestImages
    store: Store

    async def handle(self, body: Processing) -> Response:
        """Submit a job, wait for it and respond with its images.

        Raises:
            RequestValidationError: a field is invalid; errors use the A1111 field names.
            JobUnfinished: the job is not finished in time, or the client disconnects.
            JobUnsuccessful: the job failed or was cancelled.
            JobImagesUnavailable: the image store does not respond.
        """
        parsed = await self._parse(body)
        with _a1111_names():
            request = await self.submitter.validate(parsed.fields)
            job = await self.submitter.submit(request, self.submission, is_waiting=True)
        self.submission.log_accepted(job)
        job = await self._wait(job)
        files = await read_images(job, self.store) if body.send_images is not False else ()

        def content() -> str:
            return A1111Pictures(
                images=_to_base64(files),
                parameters=_sent_fields(body),
                info=info_of(job, self.card, parsed.notes),
            ).model_dump_json()

        return self.submission.hand_over(await asyncio.to_thread(content), headers=job_headers(job))

    async def _parse(self, body: Processing) -> A1111Request:
        """The parsed body, with its mask in the form that `POST /generate` expects."""
        if body.infotext or "<" in (body.prompt or ""):
            await self.loras.refresh()
        parsed = await asyncio.to_thread(
            parse_request, body, self.card, self.loras.names, self.loras.aliases
        )
        if parsed.errors:
            raise RequestValidationError(parsed.errors)
        if isinstance(body, ImageToImage) and body.mask:
            with _a1111_names():
                parsed.fields["mask"] = await self.input_images.convert_mask(
                    parsed.fields["init_image"],
                    body.mask,
                    is_inverted=bool(body.inpainting_mask_invert),
                    blur=mask_blur_of(body),
                )
        return parsed

    async def _wait(self, job: Job) -> Job:
        """The job once it has succeeded; until then it is listed as a job of the client."""
        jobs = self.client.jobs
        if jobs is not None:
            with suppress(QueueUnavailable):
                await jobs.add(job.id)
        limit = self.settings.sync_wait_seconds
        job = await wait_for_success(
            job, self.submission, limit, on_disconnect=self._mark_abandoned
        )
        if jobs is not None:
            with suppress(QueueUnavailable):
                await jobs.remove(job.id)
        return job

    async def _mark_abandoned(self, job: Job) -> None:
        """The caller has disconnected: `interrupt` prefers such jobs."""
        if self.client.jobs is not None:
            with suppress(QueueUnavailable):
                await self.client.jobs.mark_abandoned(job.id)


@contextmanager
def _a1111_names() -> Iterator[None]:
    """Rename the fields in validation errors to their A1111 names."""
    try:
        yield
    except RequestValidationError as exc:
        raise RequestValidationError(to_a1111_names(exc.errors())) from exc


def _to_base64(files: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def _sent_fields(body: Processing) -> dict[str, object]:
    """The known fields as the client sent them; images only if the client asks for them."""
    has_images = isinstance(body, ImageToImage) and body.include_init_images
    return body.model_dump(exclude=None if has_images else set(_IMAGE_FIELDS))


async def _handler(
    request: Request,
    submitter: Submitter,
    submission: SubmissionContext,
    client: CurrentClient,
    card: ServiceCard,
    settings: ServiceSettings,
    loras: Loras,
    input_images: RequestImages,
    store: Store,
) -> _GenerationHandler:
    return _GenerationHandler(
        request, submitter, submission, client, card, settings, loras, input_images, store
    )


GenerationHandler = Annotated[_GenerationHandler, Depends(_handler)]


@router.post(
    "/txt2img",
    operation_id="a1111TextToImage",
    summary="Generate images from a prompt",
    response_model=A1111Pictures,
    dependencies=_JSON,
    responses=_ERRORS,
)
async def text_to_image(body: TextToImage, handler: GenerationHandler) -> Response:
    """Submit a job, wait for it and respond with its images.

    If the job takes longer than `KIRAZURI_SYNC_WAIT_SECONDS`, or than `Prefer: wait=N`, the
    response is 504 and names the job, which continues.
    """
    return await handler.handle(body)


@router.post(
    "/img2img",
    operation_id="a1111ImageToImage",
    summary="Generate images from an image",
    response_model=A1111Pictures,
    dependencies=_JSON,
    responses=_ERRORS,
)
async def image_to_image(body: ImageToImage, handler: GenerationHandler) -> Response:
    """Like `txt2img`, but starts from an image. With `mask`, only a part of it changes."""
    return await handler.handle(body)
