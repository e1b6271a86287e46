"""What an API key allows. Knows neither HTTP nor where keys are kept."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.rating import Rating

Priority = Literal["low", "normal", "high"]


class KeyLimits(BaseModel):
    """What the holder of a key may do; None sets no limit of the key's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Priority = Field(
        default="normal", description="Share of the workers that its jobs get beside other keys'."
    )
    max_rating: Rating | None = Field(
        default=None, description="The highest rating of a picture; null: the service's own."
    )
