"""Fields of the web UI that have no equivalent here. A request that uses one gets a note."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field

NONE: Final = ("", "none")
"""Texts, in lower case, by which clients say that they choose nothing."""


@dataclass(frozen=True, slots=True)
class _Ignored:
    neutral: tuple[Any, ...]
    reason: str
    needs: str | None


def ignored(
    *neutral: Any, reason: str = "not supported", needs: str | None = None, example: Any = None
) -> Any:
    """A field that is ignored, with a note unless its value is `neutral`: changes nothing anyway.

    Texts are compared without regard to case, and lists by their items. In the web UI the field has
    an effect only if the field that it `needs` has one.
    """
    examples = [neutral[0] if neutral else example]
    info: Any = Field(default=None, description=f"Ignored: {reason}.", examples=examples)
    info.metadata.append(_Ignored(neutral, reason, needs))
    return info


def ignored_notes(body: BaseModel) -> Iterator[str]:
    """A note on each ignored field of the body that has an effect in the web UI."""
    for name in type(body).model_fields:
        mark = _mark(body, name)
        if mark is not None and _has_effect(body, name):
            yield f"{name}: ignored, {mark.reason}"


def _mark(body: BaseModel, name: str) -> _Ignored | None:
    field = type(body).model_fields.get(name)
    return next((m for m in field.metadata if isinstance(m, _Ignored)), None) if field else None


def _has_effect(body: BaseModel, name: str) -> bool:
    value, mark = getattr(body, name, None), _mark(body, name)
    if mark is None:
        return bool(value)
    if value is None or _is_neutral(value, mark.neutral):
        return False
    return mark.needs is None or _has_effect(body, mark.needs)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    if isinstance(value, list):
        return all(_is_neutral(item, neutral) for item in value)
    if isinstance(value, str):
        return value.lower() in neutral
    return value == {} or value in neutral
