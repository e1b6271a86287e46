"""Base class of response bodies."""

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """Base of all response bodies: immutable."""

    model_config = ConfigDict(frozen=True)
