"""`txt2img` and `img2img`: a request in the web UI's words, and its pictures in one answer.

The job behind it is like any other: what a call cannot wait for is fetched by its id.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError

from api.a1111.client_identity import ClientIdentity, CurrentVisitor
from api.a1111.request import A1111Request, in_their_names, read_body
from api.a1111.response import in_base64, info_of, responses
from api.a1111.schemas import A1111Pictures, ImageToImage, Processing, TextToImage
from api.http.errors import JobUnfinished, job_headers
from api.submit.context import SubmissionContext
from api.submit.dependencies import Loras, RequestImages, ServiceCard, ServiceSettings, Store
from api.submit.disconnect import wait_for_disconnect
from api.submit.submitter import Submitter
from api.submit.wait import read_images, wait_for_success
from worker.errors import QueueUnavailable
from worker.job import Job

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])

_DEFAULT_MASK_BLUR = 4
_ERRORS = responses(400, 401, 403, 404, 409, 410, 413, 422, 429, 503, 504)
_SENT_PICTURES = frozenset({"init_images", "mask"})


@dataclass(frozen=True, slots=True)
class _GenerationHandler:
    """What it takes to serve one call."""

    request: Request
    submitter: Submitter
    submission: SubmissionContext
    visitor: ClientIdentity
    card: ServiceCard
    settings: ServiceSettings
    loras: Loras
    pictures: RequestImages
    store: Store

    async def serve(self, body: Processing) -> A1111Pictures:
        """Accept a job and answer with its pictures.

        Raises:
            RequestValidationError: one entry for every wrong field, in this surface's names.
            JobUnfinished, JobUnsuccessful, PicturesAway: they cannot be in this answer.
        """
        wish = await self._wish(body)
        with _their_names():
            job = await self.submitter.submit(
                await self.submitter.validate(wish.fields), self.submission
            )
        self.submission.log(job)
        job = await self._done(job)
        is_sent = body.send_images is not False
        files = await read_images(job, self.store) if is_sent else ()
        self.submission.response.headers.update(job_headers(job))
        return A1111Pictures(
            images=await asyncio.to_thread(in_base64, files),
            parameters=_echo(body),
            info=info_of(job, self.card, wish.notes),
        )

    async def _wish(self, body: Processing) -> A1111Request:
        """What the body asks for, with its mask as the service understands masks."""
        if "<" in f"{body.prompt}{body.infotext}":
            await self.loras.refresh()
        wish = await asyncio.to_thread(read_body, body, self.card, self.loras.names)
        if wish.errors:
            raise RequestValidationError(wish.errors)
        if isinstance(body, ImageToImage) and body.mask:
            blur = _DEFAULT_MASK_BLUR if body.mask_blur is None else body.mask_blur
            with _their_names():
                wish.fields["mask"] = await self.pictures.convert_mask(
                    wish.fields["init_image"],
                    body.mask,
                    is_inverted=bool(body.inpainting_mask_invert),
                    blur=blur,
                )
        return wish

    async def _done(self, job: Job) -> Job:
        """The job once it has succeeded; meanwhile it is among the client's own."""
        jobs = self.visitor.jobs
        if jobs is not None:
            with suppress(QueueUnavailable):
                await jobs.add(job.id)
        job = await self._while_there(job)
        if jobs is not None:
            with suppress(QueueUnavailable):
                await jobs.forget(job.id)
        return job

    async def _while_there(self, job: Job) -> Job:
        """Wait, and note it when the caller hangs up: `interrupt` means such jobs before others."""
        limit = self.settings.sync_wait_seconds
        waiting = asyncio.create_task(wait_for_success(job, self.submission, limit))
        leaving = asyncio.create_task(wait_for_disconnect(self.request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and not self.submission.is_cancelled_on_disconnect:
                if self.visitor.jobs is not None:
                    with suppress(QueueUnavailable):
                        await self.visitor.jobs.mark_left(job.id)
                raise JobUnfinished(job)  # to nobody
            return await waiting
        finally:
            waiting.cancel()
            leaving.cancel()


@contextmanager
def _their_names() -> Iterator[None]:
    """Errors of our fields as errors of this surface's."""
    try:
        yield
    except RequestValidationError as exc:
        raise RequestValidationError(in_their_names(exc.errors())) from exc


def _echo(body: Processing) -> dict[str, object]:
    """The known fields as they were sent; pictures only where the client wants them back."""
    wants_pictures = isinstance(body, ImageToImage) and body.include_init_images
    return body.model_dump(exclude=None if wants_pictures else set(_SENT_PICTURES))


async def _desk(
    request: Request,
    submitter: Submitter,
    submission: SubmissionContext,
    visitor: CurrentVisitor,
    card: ServiceCard,
    settings: ServiceSettings,
    loras: Loras,
    pictures: RequestImages,
    store: Store,
) -> _GenerationHandler:
    return _GenerationHandler(
        request, submitter, submission, visitor, card, settings, loras, pictures, store
    )


Desk = Annotated[_GenerationHandler, Depends(_desk)]


@router.post(
    "/txt2img",
    operation_id="a1111TextToImage",
    summary="Pictures from words",
    responses=_ERRORS,
)
async def text_to_image(body: TextToImage, desk: Desk) -> A1111Pictures:
    """Queue a job, wait for it, and answer with its pictures.

    After `KIRAZURI_SYNC_WAIT_SECONDS`, or those of `Prefer: wait`, the answer is 504 and names the
    job, which goes on.
    """
    return await desk.serve(body)


@router.post(
    "/img2img",
    operation_id="a1111ImageToImage",
    summary="Pictures from another one",
    responses=_ERRORS,
)
async def image_to_image(body: ImageToImage, desk: Desk) -> A1111Pictures:
    """As `txt2img`, from a picture, or a part of it that a mask tells."""
    return await desk.serve(body)
