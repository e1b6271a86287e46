"""What an API key allows. Knows neither HTTP nor where keys are kept."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Priority = Literal["low", "normal", "high"]


class KeyLimits(BaseModel):
    """What the holder of a key may do; None sets no limit of the key's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Priority = Field(
        default="normal", description="Share of the workers that its jobs get beside other keys'."
    )
