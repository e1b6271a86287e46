"""A multipart form as the official clients send it, turned into values and files."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import Request

from api.http.errors import MalformedForm, UnsupportedMediaType
from api.http.multipart import is_form, media_type_of, read_parts

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
    }
)
"""Parameters that are text even where the text is a number or a word of JSON."""


class Form(NamedTuple):
    """Values by name, as JSON would have them, and files by name without brackets."""

    values: Mapping[str, Any]
    files: Mapping[str, Sequence[bytes]]


async def read_form(request: Request) -> Form:
    """The form in a request's body.

    Lists and objects come as `name[]`, `name[part]` or `name[][part]`, or as JSON.

    Raises:
        UnsupportedMediaType: it is announced as something else.
        MalformedForm: it cannot be read, or has too many parts.
    """
    if not is_form(request):
        raise UnsupportedMediaType(
            f"Content-Type is {media_type_of(request) or 'missing'}; send multipart/form-data"
        )
    values: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    for name, part in await read_parts(request, max_files=_MAX_FILES, max_fields=_MAX_FIELDS):
        if isinstance(part, bytes):
            files.setdefault(name.removesuffix("[]"), []).append(part)
        else:
            path = _path(name)
            _put(values, path, _value(path, part))
    return Form(values, files)


def _path(name: str) -> Sequence[str]:
    """The parts of a name: `loras[][name]` is loras, "", name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise MalformedForm(f"a field is called {name[:80]!r}")
    inner = re.findall(r"\[([^\[\]]*)\]", match[2])
    if len(inner) >= _MAX_DEPTH:
        raise MalformedForm(f"the field {name[:80]!r} lies too deep")
    return (match[1], *inner)


def _value(path: Sequence[str], text: str) -> Any:
    """A number, a truth value, a list or an object where the parameter is no text."""
    is_tag = path[0] == "tags" and len(path) > 1
    if path[0] in _TEXTS or is_tag or path[-1] in ("name", "url"):
        return text
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
    """One more in a list; parts of objects belong to the last one until a part comes again."""
    items = holder.setdefault(name, [])
    if not isinstance(items, list):
        raise MalformedForm(f"{name!r} is both a value and a list")
    if not rest:
        items.append(value)
        return
    if not items or not isinstance(items[-1], dict) or rest[0] in items[-1]:
        items.append({})
    _put(items[-1], rest, value)
