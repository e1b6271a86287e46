"""The arguments of the tools: their models and their JSON schemas."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.request import GenerationRequest

T = TypeVar("T", bound=BaseModel)

LONGEST_WAIT_SECONDS: Final = 50.0
"""How long a call may wait for its job: many clients give up after 60 seconds."""

LEFT_OUT: Final = frozenset({"previews", "webhook"})
"""Fields of `POST /generate` that a language model has no use for."""

_IMAGE_NAME: Final = "the name or URL of an image of this service."
_OTHER_WORDS: Final = {
    "init_image": f"Image to start from: {_IMAGE_NAME} It is scaled and cropped to `resolution`; "
    "without `resolution` it keeps its own size as far as the limits allow.",
    "mask": f"Part of `init_image` to repaint: {_IMAGE_NAME} White is repainted, black stays "
    "exactly as it is, grey is mixed.",
    "sampler_options": "Options of the sampler by name.",
    "loras": "LoRAs, applied in this order; `list_presets` has their names.",
}
_NOISE: Final = ("title", "examples")


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JobArguments(_Arguments):
    """The arguments of `cancel_job`."""

    job_id: str = Field(max_length=100, description="Id of the job, from `generate_image`.")


class WaitArguments(JobArguments):
    """The arguments of `get_job`."""

    wait_seconds: float = Field(
        default=0,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="Wait for the end of the job, at most this long.",
    )


class NoArguments(_Arguments):
    """The arguments of `list_presets`."""


def read_arguments(model: type[T], given: Mapping[str, Any]) -> T:
    """The validated arguments.

    Raises:
        RequestValidationError: one entry for every wrong argument.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
        raise RequestValidationError(errors) from exc


def unknown_fields(given: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The errors of arguments that are fields of `POST /generate`, but not of the tool."""
    return [
        {"type": "extra_forbidden", "loc": ("body", name), "msg": "", "input": None}
        for name in sorted(LEFT_OUT & set(given))
    ]


def generation_schema(request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The JSON schema of `generate_image`: the card's fields, choices and limits."""
    schema = plain_schema(request_model)
    properties = {
        name: {**of_field, "description": _OTHER_WORDS.get(name, of_field.get("description", ""))}
        for name, of_field in schema["properties"].items()
        if name not in LEFT_OUT
    }
    return {**schema, "properties": properties}


def plain_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without references, titles and nulls: some clients cannot read them."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    plain: dict[str, Any] = _plain(schema, definitions)
    plain.pop("description", None)  # of the class, for programmers
    return plain


def _plain(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        named = definitions[node["$ref"].rpartition("/")[2]]
        node = {**named, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            rest = {key: value for key, value in node.items() if key != "anyOf"}
            return _plain({**choices[0], **rest}, definitions)
    return {
        key: _plain_properties(value, definitions)
        if key == "properties"
        else _plain(value, definitions)
        for key, value in node.items()
        if key not in _NOISE and not (key == "default" and value is None)
    }


def _plain_properties(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """Names of fields are no keywords: one may be named like a keyword."""
    return {name: _plain(schema, definitions) for name, schema in properties.items()}
