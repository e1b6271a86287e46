"""Bodies and stream events of chat completions."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from api.http.response_model import AbsentIfNone, ResponseModel
from api.openai.conversation.markdown import markdown_image
from api.openai.conversation.text_tasks import TextAnswer
from api.openai.images.responses import Usage
from worker.job import StoredImage

FinishReason = Literal["stop", "tool_calls", "function_call"]


class ImageUrl(ResponseModel):
    """An image as a data URL."""

    url: str = Field(examples=["data:image/png;base64,iVBORw0KGgo…"])


class ImagePart(ResponseModel):
    """An image of a message."""

    type: Literal["image_url"] = "image_url"
    index: int = 0
    image_url: ImageUrl


class CalledFunction(ResponseModel):
    """A function and its arguments, as JSON."""

    name: str
    arguments: str


class ToolCall(ResponseModel):
    """A call of a function that the request insists on."""

    index: int = 0
    id: str = "call_0"
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(ResponseModel):
    """An answer: a Markdown image, or a text. `images` has the same image as a file."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(
        examples=[
            "![seed 42](http://localhost:8000/images/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b.png)"
        ]
    )
    images: AbsentIfNone[list[ImagePart]] = Field(
        default=None,
        description="Not part of OpenAI's API; missing for `modalities` without image.",
    )
    tool_calls: AbsentIfNone[list[ToolCall]] = Field(
        default=None, description="Missing unless the request insists on a function."
    )
    function_call: AbsentIfNone[CalledFunction] = Field(
        default=None,
        description="Missing unless the request insists on one of its `functions`, which came "
        "before `tools`.",
    )


class ChatChoice(ResponseModel):
    """One image, or the text."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason = "stop"


class TokenKinds(ResponseModel):
    """Tokens by kind."""

    image_tokens: int = 0
    text_tokens: int = 0


class ChatUsage(ResponseModel):
    """Tokens used, counted as by `/v1/images/generations`; 0 for a text."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: TokenKinds = TokenKinds()
    completion_tokens_details: TokenKinds = TokenKinds()


class ChatCompletion(ResponseModel):
    """The answer to a conversation. `job_id` and `warnings` are not part of OpenAI's API."""

    id: str = Field(examples=["chatcmpl-01JD6Z1Q8M4T0V7C2N5K9R3XWB"])
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(examples=[1795392000])
    model: str = Field(examples=["kirazuri-v1"])
    choices: list[ChatChoice]
    usage: ChatUsage
    job_id: str | None = Field(
        description="Read the job with `GET /jobs/{job_id}`; null for a text.",
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )
    warnings: list[str] = Field(
        description="What differs from the request, and advice on the prompt."
    )


class ChatAnswer(ResponseModel):
    """What a response and the chunks of a stream have in common."""

    id: str
    created: int
    model: str

    def chunk(self, *choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """One event of a stream; `choices` have `delta`, `index` and `finish_reason`."""
        head = {"id": self.id, "object": "chat.completion.chunk"}
        return {**head, "created": self.created, "model": self.model, "choices": choices, **fields}


def choice_of_chunk(
    index: int, delta: dict[str, Any], finish_reason: FinishReason | None = None
) -> dict[str, Any]:
    """One choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def image_message(
    image: StoredImage, file: bytes | None, url_of: Callable[[str], str]
) -> ChatMessage:
    """The answer with one image; it has no file if `file` is None."""
    parts = None
    if file is not None:
        data = f"data:image/{image.format};base64,{b64encode(file).decode('ascii')}"
        parts = [ImagePart(image_url=ImageUrl(url=data))]
    return ChatMessage(content=markdown_image(image, url_of), images=parts)


def text_message(answer: TextAnswer) -> ChatMessage:
    """The answer to a request of an interface."""
    if answer.tool is None:
        return ChatMessage(content=answer.text)
    function = CalledFunction(name=answer.tool, arguments=answer.text)
    if answer.is_legacy:
        return ChatMessage(content=None, function_call=function)
    return ChatMessage(content=None, tool_calls=[ToolCall(function=function)])


def chat_usage(usage: Usage) -> ChatUsage:
    """The same numbers under the names of this API."""
    given, made = usage.input_tokens_details, usage.output_tokens_details
    return ChatUsage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=TokenKinds(**dict(given)),
        completion_tokens_details=TokenKinds(**dict(made)),
    )


def finish_reason(message: ChatMessage) -> FinishReason:
    """Why a message ends."""
    if message.function_call is not None:
        return "function_call"
    return "stop" if message.tool_calls is None else "tool_calls"


def completion(
    answer: ChatAnswer,
    messages: Sequence[ChatMessage],
    usage: ChatUsage,
    *,
    job_id: str | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """The body of a response."""
    choices = [
        ChatChoice(index=index, message=message, finish_reason=finish_reason(message))
        for index, message in enumerate(messages)
    ]
    body = ChatCompletion(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        choices=choices,
        usage=usage,
        job_id=job_id,
        warnings=list(warnings),
    )
    return body.model_dump_json()
