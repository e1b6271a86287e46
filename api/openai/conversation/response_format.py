"""Bodies and output items of the Responses API."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from api.http.response_model import ResponseModel
from api.openai.conversation.markdown import markdown_image
from api.openai.conversation.text_tasks import TextAnswer
from api.openai.images.responses import AnsweredQuality, Usage
from worker.job import Job, StoredImage

Status = Literal["in_progress", "completed", "failed"]


class ImageCall(ResponseModel):
    """An image: `result` is the file in base64, null while it is made."""

    type: Literal["image_generation_call"] = "image_generation_call"
    id: str = Field(examples=["ig_01JD6Z1Q8M4T0V7C2N5K9R3XWB_0"])
    status: Literal["in_progress", "completed"]
    action: Literal["generate", "edit"]
    background: Literal["opaque"] = "opaque"
    output_format: str = Field(examples=["png"])
    quality: AnsweredQuality | Literal["auto"]
    size: str = Field(examples=["1024x1024"])
    revised_prompt: str = Field(description="The prompt of the job.", examples=["1girl, safe"])
    result: str | None = Field(examples=["iVBORw0KGgo="])


class OutputText(ResponseModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default=[])
    logprobs: list[Any] = Field(default=[])


class OutputMessage(ResponseModel):
    """A Markdown image with a URL for each image, or a text."""

    type: Literal["message"] = "message"
    id: str = Field(examples=["msg_01JD6Z1Q8M4T0V7C2N5K9R3XWB"])
    status: Literal["in_progress", "completed"] = "completed"
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class FunctionCall(ResponseModel):
    """A call of a function that the request insists on."""

    type: Literal["function_call"] = "function_call"
    id: str = Field(examples=["fc_0"])
    call_id: str = Field(examples=["call_0"])
    name: str
    arguments: str
    status: Literal["completed"] = "completed"


OutputItem = Annotated[ImageCall | OutputMessage | FunctionCall, Field(discriminator="type")]


class InputDetails(ResponseModel):
    """Nothing is cached."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(ResponseModel):
    """The model does not reason."""

    reasoning_tokens: int = 0


class ResponseUsage(ResponseModel):
    """Tokens used, counted as by `/v1/images/generations`; 0 for a text."""

    input_tokens: int = 0
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int = 0


class ResponseFailure(ResponseModel):
    """Why a response failed."""

    code: str
    message: str


class UsedTool(ResponseModel):
    """The tool that makes images."""

    type: Literal["image_generation"] = "image_generation"


class ModelResponse(ResponseModel):
    """The answer to an input. `job_id` and `warnings` are not part of OpenAI's API."""

    id: str = Field(examples=["resp_01JD6Z1Q8M4T0V7C2N5K9R3XWB"])
    object: Literal["response"] = "response"
    created_at: int = Field(examples=[1795392000])
    status: Status
    error: ResponseFailure | None = None
    incomplete_details: None = None
    instructions: None = None
    metadata: dict[str, str] = Field(description="As in the request.", examples=[{"chat": "1"}])
    model: str = Field(examples=["kirazuri-v1"])
    output: list[OutputItem]
    parallel_tool_calls: bool = True
    tool_choice: Literal["auto"] = "auto"
    tools: list[UsedTool] = Field(default=[UsedTool()])
    temperature: None = None
    top_p: None = None
    usage: ResponseUsage | None = None
    job_id: str | None = Field(
        description="Read the job with `GET /jobs/{job_id}`; null for a text.",
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )
    warnings: list[str] = Field(
        description="What differs from the request, and advice on the prompt."
    )


def image_call(
    job: Job, index: int, quality: AnsweredQuality | None, image: StoredImage | None, file: bytes
) -> ImageCall:
    """Image number `index` of a job; without `image` it is still being made."""
    request = job.request
    width, height = (image.width, image.height) if image else (request.width, request.height)
    return ImageCall(
        id=f"ig_{job.id}_{index}",
        status="completed" if image else "in_progress",
        action="edit" if request.init_image else "generate",
        output_format=request.image_format,
        quality=quality or "auto",
        size=f"{width}x{height}",
        revised_prompt=request.prompt,
        result=b64encode(file).decode("ascii") if image else None,
    )


def image_message(job: Job, url_of: Callable[[str], str]) -> OutputMessage:
    """The message with the URLs of a job's images."""
    text = "\n\n".join(markdown_image(image, url_of) for image in job.images)
    return OutputMessage(id=f"msg_{job.id}", content=[OutputText(text=text)])


def text_item(answer: TextAnswer, request_id: str) -> OutputMessage | FunctionCall:
    """The answer to a request of an interface."""
    if answer.tool is None:
        return OutputMessage(id=f"msg_{request_id}", content=[OutputText(text=answer.text)])
    ids = {"id": f"fc_{request_id}", "call_id": f"call_{request_id}"}
    return FunctionCall(**ids, name=answer.tool, arguments=answer.text)


def response_usage(usage: Usage) -> ResponseUsage:
    """The same numbers in the form of this API."""
    return ResponseUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )


def finished_output(
    job: Job, quality: AnsweredQuality | None, files: Sequence[bytes], url_of: Callable[[str], str]
) -> list[OutputItem]:
    """The output items of a job that has succeeded."""
    pairs = enumerate(zip(job.images, files, strict=True))
    calls = [image_call(job, index, quality, image, file) for index, (image, file) in pairs]
    return [*calls, image_message(job, url_of)]
