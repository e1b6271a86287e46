"""`POST /v1/images/generations` and `/v1/images/edits`: calls that wait for their pictures."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTask

from api.http.content_type import require_json
from api.http.errors import job_headers
from api.http.sse import EventStream
from api.openai import streaming
from api.openai.errors import responses
from api.openai.multipart import Form, read_form
from api.openai.parameters import OpenAIRequest, documented_type, naming, read_wish
from api.openai.responses import Images, images_of, usage_of
from api.submit.context import SubmissionContext
from api.submit.dependencies import (
    CallerUrlSigner,
    PromptTokenizers,
    RequestImages,
    ServiceSettings,
    Store,
)
from api.submit.disconnect import cancel_if_disconnected
from api.submit.submitter import Submitter
from api.submit.wait import read_images, wait_for_success
from model.request import GenerationRequest
from worker.job import Job

_FILES: Final = ("image", "mask")
_EVENTS_EXAMPLE: Final = (
    'event: image_generation.partial_image\ndata: {"type": "image_generation.partial_image", …}\n\n'
    'event: image_generation.completed\ndata: {"type": "image_generation.completed", …}\n\n'
)
_FAILURES: Final = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, from its parameters to its answer."""

    request: Request
    submitter: Submitter
    submission: SubmissionContext
    store: Store
    settings: ServiceSettings
    tokenizers: PromptTokenizers
    signer: CallerUrlSigner

    async def answer(self, raw: Mapping[str, Any], given: Mapping[str, Any], kind: str) -> Response:
        """Make the job of these parameters and wait for its pictures, or stream them."""
        wish = await read_wish(raw, self.submitter, self.settings.openai_models, given=given)
        with naming(wish.names):
            job = await self.submitter.submit(wish.body, self.submission, attempt=self._attempt())
        self.submission.log(job)
        if wish.parameters.stream:
            return self._stream(job, wish, kind)
        job = await wait_for_success(job, self.submission, self.settings.sync_wait_seconds)
        return await self._pictures(job, wish)

    def _attempt(self) -> int | None:
        """How often the client has sent this before; only the official ones tell."""
        count = self.request.headers.get("x-stainless-retry-count", "")
        return int(count) if count.isascii() and count.isdigit() and len(count) < 4 else None

    async def _pictures(self, job: Job, wish: OpenAIRequest) -> Response:
        is_url = wish.parameters.response_format == "url"
        files = None if is_url else await read_images(job, self.store)

        def told() -> str:
            answer = images_of(
                job,
                files,
                url_of=self.signer.url,
                quality=wish.quality,
                usage=usage_of(job, self.submitter.card, self.tokenizers),
                notes=wish.notes,
            )
            return answer.model_dump_json(exclude_none=True)

        return Response(
            await asyncio.to_thread(told),  # megabytes in base64
            media_type="application/json",
            headers=job_headers(job),
            background=BackgroundTask(self._settle, job, wish),
        )

    async def _settle(self, job: Job, wish: OpenAIRequest) -> None:
        """A client that is gone may come again for its answer."""
        if not await self.request.is_disconnected():
            await self.submitter.forget_attempts(wish.body, job)

    def _stream(self, job: Job, wish: OpenAIRequest, kind: str) -> Response:
        telling = streaming.StreamContext(
            queue=self.submitter.queue,
            store=self.store,
            card=self.submitter.card,
            tokenizers=self.tokenizers,
            request_id=self.request.state.request_id,
            kind=kind,
            quality=wish.quality,
            partial_images=wish.parameters.partial_images,
        )

        async def told() -> AsyncGenerator[bytes]:
            try:
                async with aclosing(streaming.told(job, telling)) as lines:
                    async for line in lines:
                        yield line
                await self._settle(job, wish)
            finally:
                if self.submission.is_cancelled_on_disconnect:
                    cancel_if_disconnected(self.request, self.submitter.queue, job.id)

        response = EventStream(told())
        response.headers.update(job_headers(job))
        return response


async def _call(
    request: Request,
    submitter: Submitter,
    submission: SubmissionContext,
    store: Store,
    settings: ServiceSettings,
    tokenizers: PromptTokenizers,
    signer: CallerUrlSigner,
) -> _Call:
    return _Call(request, submitter, submission, store, settings, tokenizers, signer)


Call = Annotated[_Call, Depends(_call)]


def routes(request_model: type[GenerationRequest]) -> APIRouter:
    """The routes, described with the fields of `POST /generate` beside OpenAI's."""
    router = APIRouter(prefix="/v1/images", tags=["openai"])

    @router.post(
        "/generations",
        operation_id="openaiGenerateImages",
        summary="Make pictures, as OpenAI does",
        response_class=Response,
        dependencies=[Depends(require_json)],
        responses={200: _SUCCESS, **responses(*_FAILURES)},
        openapi_extra={"requestBody": {"content": _json_body(request_model)}},
    )
    async def generate_images(raw: Annotated[dict[str, Any], Body()], call: Call) -> Response:
        """Make a job and wait for its pictures; `X-Job-Id` and `Location` of the answer name it.

        A call that waits too long ends with 504 and the job, which goes on. With `stream` there
        are events until the last picture is there: `image_generation.partial_image`,
        `image_generation.completed`, or `error`. Fields of `POST /generate` go beside OpenAI's.
        """
        return await call.answer(raw, {}, "image_generation")

    @router.post(
        "/edits",
        operation_id="openaiEditImage",
        summary="Change a picture, as OpenAI does",
        response_class=Response,
        responses={200: _SUCCESS, **responses(*_FAILURES)},
        openapi_extra={"requestBody": {"required": True, "content": _form_body(request_model)}},
    )
    async def edit_image(request: Request, call: Call, pictures: RequestImages) -> Response:
        """As `generations`, from a picture; events are called `image_edit.…`.

        What is transparent in `mask` is painted anew, the rest of the picture stays bit for bit.
        Without a mask the whole picture changes, by `strength`.
        """
        form = await read_form(request)
        given = await _given(form, pictures)
        return await call.answer(form.values, given, "image_edit")

    return router


async def _given(form: Form, pictures: RequestImages) -> dict[str, Any]:
    """The fields of ours that the files of a form make up."""
    errors = [_wrong(name, "unknown field") for name in form.files if name not in _FILES]
    if "init_image" in form.values:
        errors.append(_wrong("init_image", "unknown field; the picture to start from is image"))
    for name in _FILES:
        count = len(form.files.get(name, ()))
        if name in form.values:
            errors.append(_wrong(name, "a file is needed, with a name"))
        elif count > 1 or (name == "image" and not count):
            errors.append(_wrong(name, f"{count} files; send one" if count else "required"))
    if errors:
        raise RequestValidationError(errors)
    given: dict[str, Any] = {"init_image": b64encode(form.files["image"][0]).decode("ascii")}
    if "mask" in form.files:
        given["mask"] = await pictures.mask_from_alpha(form.files["mask"][0])
        if form.values.get("strength") is None:
            given["strength"] = 1.0
    return given


def _wrong(name: str, reason: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body", name), "msg": reason, "input": None}


_SUCCESS: Final[dict[str, Any]] = {
    "model": Images,
    "description": "The pictures; with `stream`, events.",
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS_EXAMPLE}},
}


def _schema(name: str, request_model: type[GenerationRequest], *without: str) -> dict[str, Any]:
    """The parameters, with parts of ours as they stand among the document's schemas."""
    described = documented_type(name, request_model, without=without)
    schema = described.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _json_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    return {"application/json": {"schema": _schema("ImagesRequest", request_model)}}


def _form_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    schema = _schema("ImageEditRequest", request_model, "init_image", "mask")
    schema["properties"] |= {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "The picture to start from, PNG, JPEG, WebP or AVIF; also as `image[]`.",
        },
        "mask": {
            "type": "string",
            "format": "binary",
            "description": "A picture of the same size, transparent where it is painted anew.",
        },
    }
    schema["required"] = ["image", *schema["required"]]
    return {"multipart/form-data": {"schema": schema}}
