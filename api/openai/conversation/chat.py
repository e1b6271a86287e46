"""Route `POST /v1/chat/completions`: the last message of the user becomes an image."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Response
from fastapi.exceptions import RequestValidationError
from fastapi.sse import format_sse_event

from api.http.request_body import require_json
from api.http.sse import EventStream
from api.openai.call import ImagesCall
from api.openai.conversation.chat_docs import SUCCESS
from api.openai.conversation.chat_format import (
    ChatAnswer,
    ChatMessage,
    ChatUsage,
    chat_usage,
    choice_of_chunk,
    completion,
    finish_reason,
    image_message,
    text_message,
)
from api.openai.conversation.image_request import (
    WantedImages,
    image_values,
    model_name,
    parse_images,
)
from api.openai.conversation.messages import read_turn
from api.openai.conversation.text_tasks import text_answer
from api.openai.errors import OpenAIError, OpenAIErrorBody, responses
from api.openai.image_references import wrong_field
from api.openai.images.parameters import OpenAIRequest
from api.openai.images.responses import usage_of
from api.openai.job_events import follow_job, with_error_event
from api.submit.submission_route import SubmissionRoute
from api.submit.wait import read_images
from worker.job import Job

_ERRORS: Final = (400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 503, 504)
_END: Final = format_sse_event(data_str="[DONE]")

router = APIRouter(prefix="/v1", tags=["openai"], route_class=SubmissionRoute)


@router.post(
    "/chat/completions",
    operation_id="openaiChat",
    summary="Generate an image in a chat (OpenAI API)",
    response_class=Response,
    dependencies=[Depends(require_json)],
    responses={200: SUCCESS, **responses(*_ERRORS)},
)
async def complete_chat(raw: Annotated[dict[str, Any], Body()], call: ImagesCall) -> Response:
    """Submit a job for the last message of the user and answer with its images.

    The text has a Markdown image with a URL, and `images` has the file. An image in the message
    is edited. Messages of other roles are no prompt. What chat interfaces ask for by
    themselves, such as a title, is answered with a text and makes no job. As elsewhere, a call
    that takes too long ends with 504, and the job continues.
    """
    return await _answer(call, raw)


async def _answer(call: ImagesCall, raw: Mapping[str, Any]) -> Response:
    model, has_usage, has_files = model_name(call, raw), _wants_usage(raw), _wants_files(raw)
    turn = read_turn(raw.get("messages"), "messages")
    text = text_answer(turn, raw, call.submitter.card.prompting)
    if text is not None:
        answer = ChatAnswer(
            id=f"chatcmpl-{call.request.state.request_id}", created=int(time.time()), model=model
        )
        message = text_message(text)
        if raw.get("stream") is True:
            return EventStream(_text_events(answer, message, has_usage=has_usage))
        return Response(completion(answer, [message], ChatUsage()), media_type="application/json")
    values, notes = image_values(raw, call.submitter.request_model.model_fields)
    parsed = await parse_images(call, WantedImages(turn, values, notes))
    job = await call.submit(parsed.body, parsed.names)
    answer = ChatAnswer(
        id=f"chatcmpl-{job.id}", created=int(job.created_at.timestamp()), model=model
    )
    if parsed.parameters.stream:
        events = _image_events(call, job, answer, has_usage=has_usage, has_files=has_files)
        request_id = call.request.state.request_id
        return call.stream(with_error_event(events, job, request_id, _error), parsed.body, job)
    job = await call.wait(job)
    messages = await _messages(call, job, has_files=has_files)
    return await _completion(call, parsed, job, answer, messages)


def _wants_usage(raw: Mapping[str, Any]) -> bool:
    """Whether a stream ends with the usage."""
    options = raw.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise RequestValidationError([wrong_field("must be an object", "stream_options")])
    return options.get("include_usage") is True


def _wants_files(raw: Mapping[str, Any]) -> bool:
    """Whether messages have the image itself; not if `modalities` does not name images."""
    modalities = raw.get("modalities")
    if modalities is not None and not isinstance(modalities, list):
        raise RequestValidationError([wrong_field("must be a list", "modalities")])
    return modalities is None or "image" in modalities


async def _messages(call: ImagesCall, job: Job, *, has_files: bool) -> Sequence[ChatMessage]:
    """One message for each image."""
    files: Sequence[bytes | None] = [None] * len(job.images)
    if has_files:
        files = await read_images(job, call.store)

    def encode() -> Sequence[ChatMessage]:
        pairs = zip(job.images, files, strict=True)
        return [image_message(image, file, call.signer.url) for image, file in pairs]

    return await asyncio.to_thread(encode)  # encodes megabytes of base64


async def _usage(call: ImagesCall, job: Job) -> ChatUsage:
    usage = await asyncio.to_thread(usage_of, job, call.submitter.card, call.tokenizers)
    return chat_usage(usage)


async def _completion(
    call: ImagesCall,
    parsed: OpenAIRequest,
    job: Job,
    answer: ChatAnswer,
    messages: Sequence[ChatMessage],
) -> Response:
    usage = await _usage(call, job)
    warnings = [*parsed.notes, *(warning.detail for warning in job.warnings)]

    def body() -> str:
        return completion(answer, messages, usage, job_id=job.id, warnings=warnings)

    return call.answer(await asyncio.to_thread(body), parsed.body, job)


async def _image_events(
    call: ImagesCall, job: Job, answer: ChatAnswer, *, has_usage: bool, has_files: bool
) -> AsyncGenerator[bytes]:
    """The chunks of a stream: the beginning at once, and everything else when the job ends."""
    count = range(job.request.num_images)
    begin = {"role": "assistant", "content": ""}
    yield _event(answer.chunk(*(choice_of_chunk(index, begin) for index in count)))
    async with aclosing(follow_job(job, call.submitter.queue)) as events:
        async for event in events:
            if event is None:
                yield b""
            elif isinstance(event, Job):
                job = event
    for index, message in enumerate(await _messages(call, job, has_files=has_files)):
        delta = message.model_dump(exclude={"role"})
        yield await asyncio.to_thread(_event, answer.chunk(choice_of_chunk(index, delta)))
    for index in count:
        yield _event(answer.chunk(choice_of_chunk(index, {}, "stop")))
    if has_usage:
        usage = await _usage(call, job)
        yield _event(answer.chunk(usage=usage.model_dump()))
    yield _END


async def _text_events(
    answer: ChatAnswer, message: ChatMessage, *, has_usage: bool
) -> AsyncGenerator[bytes]:
    delta = message.model_dump()
    yield _event(answer.chunk(choice_of_chunk(0, delta)))
    yield _event(answer.chunk(choice_of_chunk(0, {}, finish_reason(message))))
    if has_usage:
        yield _event(answer.chunk(usage=ChatUsage().model_dump()))
    yield _END


def _event(chunk: Mapping[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(chunk))


def _error(error: OpenAIErrorBody) -> bytes:
    return format_sse_event(data_str=OpenAIError(error=error).model_dump_json(ensure_ascii=True))
