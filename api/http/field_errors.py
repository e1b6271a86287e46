"""Converts pydantic's errors into `FieldError`s: short, and safe to encode."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from api.http.problem import FieldError
from model.errors import MAX_FIELD_ERRORS

_MAX_SHOWN = 80
_LIMITS = ("le", "ge", "lt", "gt", "max_length", "min_length")
_PLAIN_WORDS = {
    "missing": "required",
    "extra_forbidden": "unknown field",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
}


def printable(text: str, limit: int = _MAX_SHOWN) -> str:
    """`text` cut to `limit` characters; lone surrogates are escaped, since UTF-8 has none."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """One entry per wrong field, at most MAX_FIELD_ERRORS."""
    return [
        FieldError(
            pointer=_pointer(error["loc"]),
            detail=_detail(error),
            limit=_limit(error.get("ctx", {})),
        )
        for error in errors[:MAX_FIELD_ERRORS]
    ]


def total_of(errors: Sequence[Any]) -> int:
    """How many errors there are, with those that `validate_bounded` has only counted."""
    counted = (int(error.get("ctx", {}).get("total", 0)) for error in errors[:1])
    return max(len(errors), *counted)


def _pointer(loc: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901) into the body; "" for the body itself and for other parameters."""
    if not loc or loc[0] != "body":
        return ""
    parts = (printable(str(part)).replace("~", "~0").replace("/", "~1") for part in loc[1:])
    return "".join(f"/{part}" for part in parts)


def _detail(error: Mapping[str, Any]) -> str:
    text = _PLAIN_WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["loc"] and error["loc"][0] != "body":
        text = f"{' '.join(map(str, error['loc']))}: {text}"
    value = error["input"]
    is_long = isinstance(value, str) and len(value) > _MAX_SHOWN
    if error["type"] != "missing" and isinstance(value, str | int | float) and not is_long:
        shown = json.dumps(value)
        if len(shown) <= _MAX_SHOWN:
            text = f"{text}; got {shown}"
    return printable(text, limit=500)


def _limit(context: Mapping[str, Any]) -> int | float | list[str] | None:
    """The limit that the value exceeds: a number, or the list of allowed values."""
    for name in _LIMITS:
        if name in context:
            number: int | float = context[name]
            return number
    if "allowed" in context:
        return [str(name) for name in context["allowed"]]
    if "expected" in context:
        return re.findall(r"'([^']*)'", context["expected"])
    return None
