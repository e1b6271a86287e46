"""Reads how JSON bodies refer to images: data URLs, and images of this service."""

from typing import Any

from fastapi.exceptions import RequestValidationError


def wrong_field(reason: str, *loc: str | int) -> dict[str, Any]:
    """An error in the form of pydantic's; `loc` is the place in the body."""
    return {"type": "value_error", "loc": ("body", *loc), "msg": reason, "input": None}


def read_reference(value: Any, *loc: str | int) -> str:
    """The text of a reference: a data URL, base64, or the name or URL of an image.

    It is a string, or an object with `image_url` or `url`; an `image_url` may be such an object.

    Raises:
        RequestValidationError: it is something else; names `loc`.
    """
    for name in ("image_url", "url"):
        if isinstance(value, dict) and value.get(name) is not None:
            value, loc = value[name], (*loc, name)
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, dict) and value.get("file_id") is not None:
        reason = "files are not kept here; send `image_url`, with a data URL or an image of ours"
        raise RequestValidationError([wrong_field(reason, *loc, "file_id")])
    reason = "expected an object with `image_url`: a data URL, or the URL of an image made here"
    raise RequestValidationError([wrong_field(reason, *loc)])
