"""Turns a conversation and its parameters into a request for images."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from api.http.field_errors import printable
from api.openai.call import ImagesCall
from api.openai.conversation.messages import Turn
from api.openai.image_references import wrong_field
from api.openai.images.parameters import (
    ALIASES,
    HIDDEN_FIELDS,
    ImagesBody,
    OpenAIRequest,
    Parameters,
    parse_request,
)
from api.openai.models import check_model_name

_OTHER_MEANING: Final = frozenset({"moderation", "prompt", "response_format", "text", "tools"})
"""Names of image parameters that mean something else in a conversation."""

_CONVERSATION: Final = frozenset(
    {
        *("audio", "background_options", "conversation", "context_management", "frequency_penalty"),
        *("function_call", "functions", "include", "input", "instructions", "logit_bias"),
        *("logprobs", "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls"),
        *("messages", "metadata", "modalities", "moderation", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "previous_response_id", "prompt_cache_key", "prompt_cache_options"),
        *("prompt_cache_retention", "reasoning", "reasoning_effort", "response_format"),
        *("service_tier", "stop", "store", "stream_options", "temperature", "text", "tool_choice"),
        *("tools", "top_logprobs", "top_p", "truncation", "verbosity", "web_search_options"),
    }
)
"""Parameters of conversations that say nothing about images."""

_MAX_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class WantedImages:
    """What a conversation asks for. `notes` list what was ignored."""

    turn: Turn
    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    mask: str | None = None


def image_values(
    raw: Mapping[str, Any], request_fields: Collection[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The parameters of images among those of a conversation, and what was ignored.

    Chat interfaces send parameters of many language models, so unknown ones are no error.
    """
    own = {*Parameters.model_fields, *request_fields, *ALIASES} - HIDDEN_FIELDS - _OTHER_MEANING
    values = {name: value for name, value in raw.items() if name in own}
    if not isinstance(values.get("metadata"), str):  # here a map of the client's own notes
        values.pop("metadata", None)
    unknown = [name for name in raw if name not in own and name not in _CONVERSATION]
    told = ", ".join(printable(name) for name in unknown[:_MAX_TOLD])
    more = f" and {len(unknown) - _MAX_TOLD} more" if len(unknown) > _MAX_TOLD else ""
    return values, (f"ignored: {told}{more}",) if unknown else ()


def model_name(call: ImagesCall, raw: Mapping[str, Any]) -> str:
    """The name of the model as the client says it, for the answer.

    Raises:
        RequestValidationError: it is not a text.
        UnknownModel: it is not a name of the checkpoint.
    """
    name = raw.get("model")
    if name is not None and not isinstance(name, str):
        raise RequestValidationError([wrong_field("must be a text", "model")])
    found = check_model_name(name, call.submitter.card, call.settings.openai_models)
    return printable(found, limit=200)


async def parse_images(call: ImagesCall, wanted: WantedImages) -> OpenAIRequest:
    """Parse the request for images.

    Raises:
        RequestValidationError: the user said nothing, or sent several images; or as
            `parse_request`.
        UnknownModel: as `parse_request`.
    """
    turn = wanted.turn
    if turn.text is None:
        reason = "no message of the user; the last one is the prompt"
        raise RequestValidationError([wrong_field(reason, turn.place)])
    errors = []
    if not turn.text.strip():
        errors.append(wrong_field("the last message of the user has no text", turn.place))
    if len(turn.images) > 1:
        reason = f"{len(turn.images)} images; send one to edit it"
        errors.append(wrong_field(reason, turn.place))
    if errors:
        raise RequestValidationError(errors)
    fields: dict[str, Any] = {}
    values = dict(wanted.values)
    if turn.images:
        fields["init_image"] = turn.images[0]
        values.pop("init_image", None)
    if wanted.mask is not None:
        fields["mask"] = wanted.mask
        if turn.images and values.get("strength") is None:
            values["strength"] = 1.0
    body = ImagesBody(
        {**values, "prompt": turn.text},
        fields,
        {"prompt": turn.place, **({"init_image": turn.image_place} if turn.images else {})},
    )
    parsed = await parse_request(body, call.submitter, call.settings.openai_models)
    return replace(parsed, notes=(*wanted.notes, *parsed.notes))
