"""OpenAPI descriptions of the body and the answer of the Responses API."""

from typing import Any, Final

from api.openai.conversation.chat_docs import conversation_body
from api.openai.conversation.response_format import ModelResponse
from model.request import GenerationRequest

_EVENTS_EXAMPLE: Final = (
    'event: response.created\ndata: {"type": "response.created", …}\n\n'
    'event: response.completed\ndata: {"type": "response.completed", …}\n\n'
)

SUCCESS: Final[dict[str, Any]] = {
    "model": ModelResponse,
    "description": "The images; with `stream`, events.",
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS_EXAMPLE}},
}

_OWN: Final[dict[str, Any]] = {
    "input": {
        "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {}}],
        "description": "A prompt, or a list of messages whose last one of the user is the prompt. "
        "Its content is a text, or a list of `input_text` parts and at most one `input_image` "
        "part: a data URL, or the URL of an image made by this service.",
        "examples": ["masterpiece, best quality, 1girl, blue hair"],
    },
    "tools": {
        "type": ["array", "null"],
        "items": {},
        "description": "The parameters of the tool `image_generation` are used: `size`, `quality`, "
        "`output_format`, `output_compression`, `partial_images`, `action`, `input_image_mask`.",
        "examples": [[{"type": "image_generation", "size": "1024x1024"}]],
    },
}


def response_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The content of the body of `responses`, by media type."""
    body = conversation_body("ResponseRequest", request_model, "input", _OWN)
    body["application/json"]["schema"]["properties"].pop("background")
    return body
