"""API keys: what one allows, what is kept of it, and the secret that is told once.

Knows neither HTTP nor where keys are kept.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.rating import Rating

SECRET_PREFIX = "kzr_"  # noqa: S105 - the part of a key that people and scanners know it by

Priority = Literal["low", "normal", "high"]

WEIGHTS: Mapping[str, float] = {"low": 0.25, "normal": 1.0, "high": 4.0}
"""Share of the workers that a key of each priority gets, relative to other keys."""


class KeyLimits(BaseModel):
    """What the holder of a key may do; None sets no limit of the key's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Priority = Field(
        default="normal", description="Share of the workers that its jobs get beside other keys'."
    )
    max_rating: Rating | None = Field(
        default=None, description="The highest rating of a picture; null: the service's own."
    )
    rate: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,5}/(second|minute|hour|day)$",
        description="Submissions in a span of time, such as 60/minute.",
    )
    quota: float | None = Field(
        default=None, gt=0, description="Megapixel-steps a day, from midnight to midnight UTC."
    )
    concurrency: int | None = Field(
        default=None, ge=0, description="Jobs that wait or run at one time; 0 submits nothing."
    )
    loras: tuple[str, ...] | None = Field(
        default=None, description="Names of LoRAs that may be used; an empty list is none."
    )
    resolutions: tuple[str, ...] | None = Field(
        default=None,
        description="Presets or WIDTHxHEIGHT; a second pass must end at one of them too.",
    )


class ApiKey(BaseModel):
    """What is kept of a key: never its secret.

    Whoever reads the place where keys are kept learns only hashes. Plain SHA-256 is enough: a
    secret has 256 random bits, so there is nothing to guess that a slow, salted hash would guard
    as it guards passwords. And a hash may be looked up in a table: how long that takes tells
    something of the hash alone, from which no secret is made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="What people call it."
    )
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the secret, in hex.")
    created_at: datetime | None = None
    limits: KeyLimits = KeyLimits()

    @property
    def id(self) -> str:
        """Owner of what the key makes; a new secret is another owner, whatever its name."""
        return self.hash[:16]


def new_secret() -> str:
    """A key as its holder sends it: 256 random bits behind a prefix."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """What is kept of a secret: hex, 64 characters."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
