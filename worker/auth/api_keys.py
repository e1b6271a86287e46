"""Defines API keys: their limits, their hash and their secret."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.rating import Rating

SECRET_PREFIX = "kzr_"  # noqa: S105 - a public prefix, for people and scanners

Priority = Literal["low", "normal", "high"]

WEIGHTS: Mapping[str, float] = {"low": 0.25, "normal": 1.0, "high": 4.0}
"""Share of the workers that a key gets by its priority, relative to other keys."""


class KeyLimits(BaseModel):
    """Limits of an API key; None sets no limit for this key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: Priority = Field(
        default="normal",
        description="Share of the workers that its jobs get, relative to other keys.",
    )
    max_rating: Rating | None = Field(
        default=None, description="Highest image rating; null: that of the service."
    )
    rate: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,5}/(second|minute|hour|day)$",
        description="Submissions per time, such as 60/minute.",
    )
    quota: float | None = Field(default=None, gt=0, description="Megapixel-steps per day (UTC).")
    concurrency: int | None = Field(
        default=None, ge=0, description="Jobs that may wait or run at once; 0 allows none."
    )
    loras: tuple[str, ...] | None = Field(
        default=None, description="Names of LoRAs that may be used; an empty list allows none."
    )
    resolutions: tuple[str, ...] | None = Field(
        default=None,
        description="Allowed presets or WIDTHxHEIGHT, also for the result of a second pass.",
    )


class ApiKey(BaseModel):
    """A stored key: its name, limits and hash, but not its secret.

    Plain SHA-256 is enough. A secret has 256 random bits and cannot be guessed, so it does not need
    the slow, salted hash of a password. A lookup by hash may leak the hash through its timing, but
    nobody can derive a secret from a hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the key.")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the secret, in hex.")
    created_at: datetime | None = None
    limits: KeyLimits = KeyLimits()

    @property
    def id(self) -> str:
        """Id of the key as an owner of jobs; a new secret makes a new owner."""
        return self.hash[:16]


def new_secret() -> str:
    """A new secret: the prefix and 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """SHA-256 of a secret: 64 hex digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
