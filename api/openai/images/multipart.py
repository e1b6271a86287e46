"""Parses the multipart forms that the official clients send into values and files."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import Request

from api.http.errors import MalformedForm, UnsupportedMediaType
from api.http.request_body import JsonMeter, is_form, media_type_of, read_parts
from api.openai.images.parameters import Parameters
from model.request import GenerationRequest

_MAX_FILES: Final = 20
_MAX_FIELDS: Final = 1000
_MAX_DEPTH: Final = 4

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_TEXTS: Final = frozenset(
    {
        "prompt",
        "negative_prompt",
        "model",
        "size",
        "quality",
        "resolution",
        "sampler",
        "scheduler",
        "user",
        "safety_identifier",
        "image",
        "mask",
        "metadata",
    }
)
"""Parameters that stay text even if the text is valid JSON, such as a number."""

_PROMPTS: Final = frozenset({"prompt", "negative_prompt"})
"""Parameters whose empty text means something."""

_SWITCHES: Final = frozenset(
    name
    for model in (Parameters, GenerationRequest)
    for name, field in model.model_fields.items()
    if field.annotation is bool
)
_SWITCH_WORDS: Final = {
    **dict.fromkeys(("true", "1", "on", "yes"), True),
    **dict.fromkeys(("false", "0", "off", "no"), False),
}
_NOTHING: Final = frozenset({"null", "none", "undefined"})
"""What programs make of a value that is not set when they write it as text."""


class Form(NamedTuple):
    """Values by name, as in a JSON body, and files by name without brackets."""

    values: Mapping[str, Any]
    files: Mapping[str, Sequence[bytes]]


async def read_form(request: Request) -> Form:
    """Parse the form in the body of a request.

    Lists and objects are sent as `name[]`, `name[key]` or `name[][key]`, or as JSON. Fields that
    were left open are missing; `on`, `1` and `True` are true.

    Raises:
        UnsupportedMediaType: the body is not a multipart form.
        MalformedForm: the form cannot be read or has too many parts.
        BodyRefused: the JSON in it has too many values or levels.
    """
    if not is_form(request):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type_of(request) or 'missing'}; send multipart/form-data"
        )
    values: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    meter = JsonMeter()
    for name, part in await read_parts(request, max_files=_MAX_FILES, max_fields=_MAX_FIELDS):
        if not isinstance(part, bytes):
            path = _path(name)
            if not _is_left_open(path, part):
                _put(values, path, _value(path, part, meter))
        elif part:  # a page sends an empty file for a field that was left open
            files.setdefault(name.removesuffix("[]"), []).append(part)
    return Form(values, files)


def _path(name: str) -> Sequence[str]:
    """Split a field name: `loras[][name]` becomes loras, "", name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise MalformedForm(f"invalid field name {name[:80]!r}")
    inner = re.findall(r"\[([^\[\]]*)\]", match[2])
    if len(inner) >= _MAX_DEPTH:
        raise MalformedForm(f"field name {name[:80]!r} is nested too deeply")
    return (match[1], *inner)


def _is_text(path: Sequence[str]) -> bool:
    is_tag = path[0] == "tags" and len(path) > 1
    return path[0] in _TEXTS or is_tag or path[-1] in ("name", "url")


def _is_left_open(path: Sequence[str], text: str) -> bool:
    """Whether the client has no value for the field: forms send such fields too."""
    word = text.strip().lower()
    return path[0] not in _PROMPTS and (not word or (word in _NOTHING and not _is_text(path)))


def _value(path: Sequence[str], text: str, meter: JsonMeter) -> Any:
    """The JSON value of a field; the text itself if the parameter is a text or not valid JSON."""
    if _is_text(path):
        return text
    if path[0] in _SWITCHES:
        return _SWITCH_WORDS.get(text.strip().lower(), text)
    if text.lstrip()[:1] in ("{", "["):
        meter.feed_part(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _put(holder: dict[str, Any], path: Sequence[str], value: Any) -> None:
    name, *rest = path
    if not rest:
        holder[name] = value
    elif rest[0] == "":
        _append(holder, name, rest[1:], value)
    else:
        inner = holder.setdefault(name, {})
        if not isinstance(inner, dict):
            raise MalformedForm(f"{name!r} is both a value and an object")
        _put(inner, rest, value)


def _append(holder: dict[str, Any], name: str, rest: Sequence[str], value: Any) -> None:
    """Append to a list. A key belongs to the last object until that object already has the key."""
    items = holder.setdefault(name, [])
    if not isinstance(items, list):
        raise MalformedForm(f"{name!r} is both a value and a list")
    if not rest:
        items.append(value)
        return
    if not items or not isinstance(items[-1], dict) or rest[0] in items[-1]:
        items.append({})
    _put(items[-1], rest, value)
