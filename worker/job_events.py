"""Defines the events of a job: entries of its Redis stream, sent as server-sent events."""

from typing import Any, Final, Literal

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
EVENTS: Final[dict[EventName, tuple[str, str]]] = {
    "queued": ("", "The job is accepted."),
    "started": ("`attempt`, `worker`", "A worker runs the job."),
    "progress": ("`step`, `steps`, `eta_seconds`", "A step is done."),
    "preview": (
        "`image`, `step`, `index`",
        "A small picture of image `index`, a WebP data URL. Only with `previews`.",
    ),
    "image": ("as in `images` of a job", "An image is stored."),
    "succeeded": ("`images`", "The last event: all images are stored."),
    "failed": ("`error`", "The last event: a problem, as in `error` of the job."),
    "cancelled": ("`reason`", "The last event. `client`, or `deadline` for `Cancel-After`."),
    "retrying": ("`attempt`, `reason`", "The job returns to the queue, for its next `attempt`."),
    "gap": ("", "In place of older events that were dropped. The current state follows."),
}
"""The fields of each event's data, and what it means; docs/problems.md shows them."""

TERMINAL_EVENTS: frozenset[EventName] = frozenset({"succeeded", "failed", "cancelled"})


class JobEvent(BaseModel):
    """One event; `id` is the id of the stream's entry, which increases.

    A newer release may have written an `event` that this one does not know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    event: EventName | str
    data: dict[str, Any]
