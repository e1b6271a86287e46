"""Base class of response bodies, and the type of fields that a body may lack."""

from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")

ABSENT_MARK: Final = "x-absent-if-none"
"""Marks the schema of a field that a body may lack. The OpenAPI document does not show the mark."""


def _is_none(value: Any) -> bool:
    return value is None


AbsentIfNone = Annotated[
    T | None, Field(exclude_if=_is_none, json_schema_extra={ABSENT_MARK: True})
]
"""A field that is left out while it is None. All other fields are always sent, also as null."""


class ResponseModel(BaseModel):
    """Base of all response bodies: immutable.

    They are built when they are first needed, because to build all takes a tenth of the start.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)
