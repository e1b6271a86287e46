"""A webhook as it lies in a job's record: where to, of what, and what became of it.

Knows neither HTTP nor Redis.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

WebhookEventName = Literal["started", "succeeded", "failed", "cancelled"]
EVENT_NAMES: tuple[WebhookEventName, ...] = get_args(WebhookEventName)

DELIVERY_PREFIX = "delivery:"
"""Fields of a job's record that begin so are its log of deliveries, each with its number."""

LOG_LENGTH = 50
"""Attempts of one job that are remembered."""


class _WebhookPart(BaseModel):
    # A newer release may have written more than this one knows.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Webhook(_WebhookPart):
    """Who is to be told of which events; `base_url` is the prefix of URLs in what is sent."""

    url: str
    host: str
    events: tuple[str, ...]
    base_url: str


class WebhookDelivery(_WebhookPart):
    """One attempt to tell the receiver of one event."""

    id: str = Field(description="`webhook-id`: the same in every attempt at one event.")
    event: WebhookEventName
    attempt: int = Field(ge=1)
    at: datetime
    seconds: float = Field(ge=0, description="How long the attempt took.")
    status: int | None = Field(default=None, description="The HTTP status that was answered.")
    error: str | None = Field(default=None, description="Why it failed; null once delivered.")
    next_at: datetime | None = Field(default=None, description="When it is tried again, if ever.")


class JobWebhook(_WebhookPart):
    """A job's webhook as its owner sees it: the query of the URL, where secrets are, is hidden."""

    url: str
    events: tuple[WebhookEventName, ...]
    deliveries: tuple[WebhookDelivery, ...] = Field(
        default=(), description=f"Attempts so far, the last {LOG_LENGTH} of them."
    )

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Self | None:
        """The webhook in a job's record with its log, None where it has none."""
        if not record.get("webhook"):
            return None
        webhook = Webhook.model_validate_json(record["webhook"])
        path, separator, _ = webhook.url.partition("?")
        numbers = sorted(
            int(name.removeprefix(DELIVERY_PREFIX))
            for name in record
            if name.startswith(DELIVERY_PREFIX)
        )
        entries = (json.loads(record[f"{DELIVERY_PREFIX}{number}"]) for number in numbers)
        return cls(
            url=f"{path}?…" if separator else path,
            events=tuple(name for name in EVENT_NAMES if name in webhook.events),
            deliveries=tuple(_read_entry(entry) for entry in entries),
        )


def _read_entry(entry: dict[str, Any]) -> WebhookDelivery:
    """An entry of the log; its times are seconds since the epoch."""
    for name in ("at", "next_at"):
        if name in entry:
            entry[name] = datetime.fromtimestamp(entry[name], UTC)
    return WebhookDelivery(**entry)
