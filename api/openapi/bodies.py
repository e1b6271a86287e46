"""Rewrites the schemas of bodies so that client generators derive the right types from them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from api.http.response_model import ABSENT_MARK

_STREAM = "text/event-stream"


def fit_for_generators(document: dict[str, Any]) -> None:
    """Make every field that is always sent required, and none that may be left out.

    Responses: pydantic calls a field with a default optional, although the service always sends
    it. Requests: some generators call a field with a default required, although clients may leave
    it out; its default moves to the description.
    """
    schemas = document["components"]["schemas"]
    received = [*_request_bodies(document["paths"])]
    sent = [
        answer
        for operation in operations(document["paths"])
        for answer in operation["responses"].values()
    ]
    sent += _request_bodies(document.get("webhooks", {}))
    for schema in _objects(sent, schemas):
        _require_sent_fields(schema)
    for schema in _objects(received, schemas):
        _describe_defaults(schema)
    for answer in sent:
        _describe_stream_beside_json(answer)


def operations(paths: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All operations of the paths."""
    for methods in paths.values():
        yield from methods.values()


def _request_bodies(paths: dict[str, Any]) -> Iterator[Any]:
    for operation in operations(paths):
        if "requestBody" in operation:
            yield operation["requestBody"]


def _objects(parts: Iterable[Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """All schemas with properties in `parts` and in the schemas that they refer to."""
    found, seen, waiting = [], set(), [*parts]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                waiting.append(schemas[name])
            if isinstance(part.get("properties"), dict):
                found.append(part)
            waiting += [value for key, value in part.items() if key not in ("example", "examples")]
    return found


def _require_sent_fields(schema: dict[str, Any]) -> None:
    fields = schema["properties"]
    absent = {name for name, field in fields.items() if field.pop(ABSENT_MARK, False)}
    for name, field in fields.items():
        field.pop("default", None)
        if name in absent:
            drop_null(field)
    if required := [name for name in fields if name not in absent]:
        schema["required"] = required


def drop_null(schema: dict[str, Any]) -> None:
    """Remove null from the types of a field or parameter that is left out instead."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _describe_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        default = field.pop("default", None)
        if default not in (None, "", [], {}):
            value = default if isinstance(default, str) else json.dumps(default)
            field["description"] = f"{field.get('description', '')} Default: `{value}`.".strip()


def _describe_stream_beside_json(answer: dict[str, Any]) -> None:
    """Put JSON first: generators type a response by its first body, and a stream has no schema."""
    content = answer.get("content", {})
    if len(content) > 1 and _STREAM in content:
        stream = content.pop(_STREAM)
        content[_STREAM] = {**stream, "schema": {"type": "string"}}
