"""Base class of all A1111 bodies, and the bodies that many routes share."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from model.errors import validate_bounded

TIMESTAMP_FORMAT = "%Y%m%d%H%M%S"
"""Format of `job_timestamp`."""


class A1111Body(BaseModel):
    """Base of all A1111 bodies: immutable, and unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,  # as ResponseModel
    )

    @model_validator(mode="wrap")
    @classmethod
    def _find_few_errors(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return validate_bounded(data, handler)


class A1111Done(A1111Body):
    """An empty object: the call succeeded."""


class A1111Error(A1111Body):
    """An error in the format that A1111 clients expect."""

    error: str = Field(description="Problem code.", examples=["validation_failed"])
    detail: str | list[dict[str, Any]] = Field(
        description="What is wrong: a text, or a list with one entry per invalid field.",
        examples=["Sampler not found"],
    )
    body: str = Field(description="Always empty.", examples=[""])
    errors: str = Field(
        description="The same as `detail`, as one text.", examples=["steps: at most 100; got 500"]
    )
    job_id: str | None = Field(
        default=None,
        description="Id of the job this call made, if any. Read it with `GET /jobs/{job_id}`.",
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )
