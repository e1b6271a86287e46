"""Defines the events of a job: entries of its Redis stream, sent as server-sent events."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

EventName = Literal[
    "queued",
    "started",
    "progress",
    "preview",
    "image",
    "succeeded",
    "failed",
    "cancelled",
    "retrying",
    "gap",
]
TERMINAL_EVENTS: frozenset[EventName] = frozenset({"succeeded", "failed", "cancelled"})


class JobEvent(BaseModel):
    """One event; `id` is the id of the stream's entry, which increases.

    A newer release may have written an `event` that this one does not know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    event: EventName | str
    data: dict[str, Any]
