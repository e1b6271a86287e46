"""OpenAPI descriptions of the body and the response of chat completions."""

from collections.abc import Mapping
from typing import Any, Final

from api.openai.conversation.chat_format import ChatCompletion
from api.openai.images.request_docs import documented_type, schema_of
from model.request import GenerationRequest

_EVENTS_EXAMPLE: Final = (
    'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "![…](…)"}, …}]}'
    "\n\ndata: [DONE]\n\n"
)

SUCCESS: Final[dict[str, Any]] = {
    "model": ChatCompletion,
    "description": "The images; with `stream`, events.",
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS_EXAMPLE}},
}

_MESSAGES: Final[dict[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "items": {},  # only the last ones are read
    "description": "Objects with `role` and `content`. The last message of the user is the prompt. "
    "Its content is a text, or a list of `text` parts and at most one `image_url` part: a data "
    "URL, or the URL of an image made by this service.",
    "examples": [[{"role": "user", "content": "masterpiece, best quality, 1girl, blue hair"}]],
}

_OWN: Final[dict[str, Any]] = {
    "messages": _MESSAGES,
    "modalities": {
        "type": ["array", "null"],
        "items": {},
        "description": "Without `image`, the answer has no `images`, only the URL in its text.",
        "examples": [["text"]],
    },
    "stream_options": {
        "type": ["object", "null"],
        "description": "With `include_usage`, the last event of a stream has the usage.",
        "examples": [{"include_usage": True}],
    },
}


def chat_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The content of the body of `chat/completions`, by media type."""
    return conversation_body("ChatRequest", request_model, "messages", _OWN)


def conversation_body(
    name: str, request_model: type[GenerationRequest], required: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of images together with those of a conversation; unknown ones are ignored."""
    schema = schema_of(documented_type(name, request_model))
    hidden = ("prompt", "moderation", "response_format", "partial_images", "metadata")
    for field in hidden:
        schema["properties"].pop(field)
    schema["properties"] = {**own, **schema["properties"]}
    schema["properties"]["n"]["description"] = "Number of images, each of them a choice."
    schema["required"] = [required]
    schema["additionalProperties"] = True
    return {"application/json": {"schema": schema}}
