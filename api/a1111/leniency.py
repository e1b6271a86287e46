"""Reads request bodies as the web UI does, whose stack (pydantic 1) converts most values.

`"20"`, `20.7` and `true` are integers, `7` is a text, and `[]`, as PHP writes it, an empty object.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, get_args, get_origin

from fastapi import Request
from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator

from api.a1111.schemas import A1111Body
from api.http.errors import UnsupportedMediaType
from api.http.request_body import is_json, media_type_of

_MAX_NUMBER_CHARS = 400

Reader = Callable[[Any], Any]
"""Converts a value; one that cannot be converted stays as it is, and validation refuses it."""


def read_integer(value: Any) -> Any:
    """An integer from a boolean, a text, or a number, whose fraction is cut off."""
    if isinstance(value, bool | float | str) and not _is_long(value):
        with suppress(ValueError, OverflowError):
            return int(value)
    return value


def read_number(value: Any) -> Any:
    """A number from a boolean or a text."""
    if isinstance(value, bool | str) and not _is_long(value):
        with suppress(ValueError):
            return float(value)
    return value


def _is_long(value: Any) -> bool:
    """Whether a text is too long for a number; the time to read one grows with its length."""
    return isinstance(value, str) and len(value) > _MAX_NUMBER_CHARS


def read_text(value: Any) -> Any:
    """A text from a number or a boolean, as Python writes it."""
    return str(value) if isinstance(value, int | float) else value


def read_object(value: Any) -> Any:
    """An object from a list of pairs, which may be empty."""
    if isinstance(value, list):
        with suppress(TypeError, ValueError):
            return {read_text(name): content for name, content in value}
    return value


def _read_texts(value: Any) -> Any:
    return [*map(read_text, value)] if isinstance(value, list) else value


_READERS: dict[Any, Reader] = {
    int: read_integer,
    float: read_number,
    str: read_text,
    dict: read_object,
    list: _read_texts,
}

_MORE_TYPES: dict[str, tuple[str, ...]] = {
    "integer": ("number", "string", "boolean"),
    "number": ("string", "boolean"),
    "boolean": ("string", "number"),
    "string": ("number", "boolean"),
    "object": ("array",),
}
"""JSON types that are accepted for a field of a JSON type."""


def _reader(annotation: Any) -> Reader | None:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    kind = kinds[0] if type(None) in get_args(annotation) else annotation
    return _READERS.get(get_origin(kind) or kind)


def _describe_types(schema: dict[str, Any]) -> None:
    """List the accepted types of each field in the OpenAPI document."""
    for field in schema["properties"].values():
        choices = field.setdefault("anyOf", [{"type": field.pop("type", None)}])
        if "items" in choices[0]:
            choices[0]["items"] = {"type": ["string", "number", "boolean"]}
        for more in _MORE_TYPES.get(choices[0].get("type", ""), ()):
            choices.append({"type": more, **({"items": {}} if more == "array" else {})})


class A1111Input(A1111Body):
    """Base of request bodies."""

    model_config = ConfigDict(json_schema_extra=_describe_types, defer_build=False)

    @model_validator(mode="before")
    @classmethod
    def _read_body(cls, body: Any) -> Any:
        return read_object(body)

    @field_validator("*", mode="before")
    @classmethod
    def _read_field(cls, value: Any, info: ValidationInfo) -> Any:
        reader = _reader(cls.model_fields[f"{info.field_name}"].annotation)
        return reader(value) if reader else value


async def require_json_if_declared(request: Request) -> None:
    """Route dependency: JSON without a `Content-Type` is accepted, as the web UI does.

    Raises:
        UnsupportedMediaType: the body is declared as something else.
    """
    if (media_type := media_type_of(request)) and not is_json(request):
        raise UnsupportedMediaType(f"Content-Type is {media_type}; send application/json")
