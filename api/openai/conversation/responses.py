"""Route `POST /v1/responses`: the last message of the user becomes an image."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Response

from api.http.request_body import require_json
from api.http.sse import EventStream
from api.openai.call import ImagesCall
from api.openai.conversation.image_request import (
    WantedImages,
    image_values,
    model_name,
    parse_images,
)
from api.openai.conversation.response_docs import SUCCESS
from api.openai.conversation.response_events import ResponseEvents
from api.openai.conversation.response_format import (
    ModelResponse,
    ResponseUsage,
    finished_output,
    image_call,
    response_usage,
    text_item,
)
from api.openai.conversation.response_input import (
    ImageTool,
    notes_on_state,
    own_notes,
    read_input,
)
from api.openai.conversation.text_tasks import TextAnswer, text_answer
from api.openai.errors import responses
from api.openai.images.parameters import OpenAIRequest
from api.openai.images.responses import QUALITIES, usage_of
from api.openai.job_events import Preview, follow_job, with_error_event
from api.submit.dependencies import RequestImages
from api.submit.images.input_images import InputImages
from api.submit.submission_route import SubmissionRoute
from api.submit.wait import read_images
from worker.job import Job

_ERRORS: Final = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)

router = APIRouter(prefix="/v1", tags=["openai"], route_class=SubmissionRoute)


@router.post(
    "/responses",
    operation_id="openaiRespond",
    summary="Generate an image as a response (OpenAI API)",
    response_class=Response,
    dependencies=[Depends(require_json)],
    responses={200: SUCCESS, **responses(*_ERRORS)},
)
async def respond(
    raw: Annotated[dict[str, Any], Body()], call: ImagesCall, input_images: RequestImages
) -> Response:
    """Like `chat/completions`, with the parameters of the tool `image_generation`.

    The output has an `image_generation_call` for each image and a message with their URLs. With
    `stream`, previews are sent as the tool asks for them. Nothing is kept but the job, so
    `previous_response_id` has no effect.
    """
    return await _answer(call, raw, input_images)


async def _answer(call: ImagesCall, raw: Mapping[str, Any], images: InputImages) -> Response:
    model, turn, tool = model_name(call, raw), read_input(raw), ImageTool(raw)
    text = text_answer(turn, raw, call.submitter.card.prompting)
    if text is not None:
        return _text_response(call, raw, model, text)
    values, notes = image_values(raw, call.submitter.request_model.model_fields)
    if isinstance(values.get("background"), bool):  # whether to answer before the end
        del values["background"]
    turn, mask = tool.check_action(turn), tool.mask()
    with tool.names():
        if mask is not None:
            mask = await images.mask_from_alpha(mask)
        wanted = WantedImages(turn, {**values, **tool.values}, (*notes, *notes_on_state(raw)), mask)
        parsed = await parse_images(call, wanted)
        job = await call.submit(parsed.body, parsed.names)
    begun = ModelResponse(
        id=f"resp_{job.id}",
        created_at=int(job.created_at.timestamp()),
        status="in_progress",
        metadata=own_notes(raw),
        model=model,
        output=[],
        job_id=job.id,
        warnings=[*parsed.notes, *(warning.detail for warning in job.warnings)],
    )
    if parsed.parameters.stream:
        events = ResponseEvents(begun)
        lines = with_error_event(
            _image_events(call, parsed, job, events),
            job,
            call.request.state.request_id,
            events.fail,
        )
        return call.stream(lines, parsed.body, job)
    job = await call.wait(job)
    done = await _completed(call, parsed, job, begun)
    content = await asyncio.to_thread(done.model_dump_json)
    return call.answer(content, parsed.body, job)


def _text_response(
    call: ImagesCall, raw: Mapping[str, Any], model: str, text: TextAnswer
) -> Response:
    request_id = call.request.state.request_id
    done = ModelResponse(
        id=f"resp_{request_id}",
        created_at=int(time.time()),
        status="completed",
        metadata=own_notes(raw),
        model=model,
        output=[text_item(text, request_id)],
        usage=ResponseUsage(),
        job_id=None,
        warnings=[],
    )
    if raw.get("stream") is not True:
        return Response(done.model_dump_json(), media_type="application/json")
    begun = done.model_copy(update={"status": "in_progress", "output": [], "usage": None})

    async def lines() -> AsyncGenerator[bytes]:
        events = ResponseEvents(begun)
        yield events.begin()
        for event in events.end(done):
            yield event

    return EventStream(lines())


async def _completed(
    call: ImagesCall, parsed: OpenAIRequest, job: Job, begun: ModelResponse
) -> ModelResponse:
    """The response of a job that has succeeded, with its images."""
    files = await read_images(job, call.store)
    quality = QUALITIES.get(parsed.quality)

    def complete() -> ModelResponse:
        usage = usage_of(job, call.submitter.card, call.tokenizers)
        output = finished_output(job, quality, files, call.signer.url)
        done = {"status": "completed", "output": output, "usage": response_usage(usage)}
        told = [*parsed.notes, *(warning.detail for warning in job.warnings)]
        return begun.model_copy(update={**done, "warnings": told})

    return await asyncio.to_thread(complete)  # encodes megabytes of base64


async def _image_events(
    call: ImagesCall, parsed: OpenAIRequest, job: Job, events: ResponseEvents
) -> AsyncGenerator[bytes]:
    quality = QUALITIES.get(parsed.quality)
    calls = [image_call(job, index, quality, None, b"") for index in range(job.request.num_images)]
    yield events.begin(calls)
    wanted = parsed.parameters.partial_images
    async with aclosing(follow_job(job, call.submitter.queue, partial_images=wanted)) as found:
        async for event in found:
            if event is None:
                yield b""
            elif isinstance(event, Preview):
                yield events.preview(event, calls[event.image])
            else:
                job = event
    done = await _completed(call, parsed, job, events.begun)
    for line in await asyncio.to_thread(lambda: [*events.end(done)]):
        yield line
