"""The events of a job, as they lie in its Redis stream and go out as server-sent events."""

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
    """One event; `id` grows with every event of a job (the Redis stream's id)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    event: EventName
    data: dict[str, Any]
