"""Defines a job's webhook: its URL, its events and its deliveries."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

WebhookEventName = Literal["started", "succeeded", "failed", "cancelled"]
WEBHOOK_EVENTS: tuple[WebhookEventName, ...] = get_args(WebhookEventName)

DELIVERY_PREFIX = "delivery:"
"""Prefix of the fields in a job's record that log deliveries; a number follows it."""

MAX_LOGGED_DELIVERIES = 50
"""Deliveries that a job's record keeps."""


class _WebhookPart(BaseModel):
    # A newer release may have written more than this one knows.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Webhook(_WebhookPart):
    """A webhook in a job's record; `base_url` is the prefix of the URLs in its payload."""

    url: str
    host: str
    events: tuple[str, ...]
    base_url: str


class WebhookDelivery(_WebhookPart):
    """One attempt to deliver one event."""

    id: str = Field(
        description="Header `webhook-id`: the same in all attempts to deliver one event."
    )
    event: WebhookEventName
    attempt: int = Field(ge=1)
    at: datetime
    seconds: float = Field(ge=0, description="Duration of the attempt.")
    status: int | None = Field(default=None, description="HTTP status of the response.")
    error: str | None = Field(
        default=None, description="Why the attempt failed; null if it succeeded."
    )
    next_at: datetime | None = Field(
        default=None, description="Time of the next attempt; null if there is none."
    )


class JobWebhook(_WebhookPart):
    """A job's webhook as its owner sees it; hides the query of the URL, which may hold secrets."""

    url: str
    events: tuple[WebhookEventName, ...]
    deliveries: tuple[WebhookDelivery, ...] = Field(
        default=(), description=f"The last {MAX_LOGGED_DELIVERIES} attempts."
    )

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> Self | None:
        """The webhook of a job's record; None if it has none."""
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
            events=tuple(name for name in WEBHOOK_EVENTS if name in webhook.events),
            deliveries=tuple(_read_entry(entry) for entry in entries),
        )


def _read_entry(entry: dict[str, Any]) -> WebhookDelivery:
    """A delivery from its log entry, which has times in seconds since 1970."""
    for name in ("at", "next_at"):
        if name in entry:
            entry[name] = datetime.fromtimestamp(entry[name], UTC)
    return WebhookDelivery(**entry)
