"""Defines a job as clients see it, and the status of a worker."""

import math
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.card import Card
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from model.resolved_request import ResolvedRequest
from worker.webhook import JobWebhook

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

SCHEMA_VERSION = 2
"""Version of job records; raised when workers of the previous release cannot run new jobs."""

READABLE_SCHEMAS = (SCHEMA_VERSION, 1)
"""Versions this release runs; jobs of newer versions wait for newer workers."""

Checkpoint = tuple[str, str]
"""Name of a card and SHA-256 of its transformer's file, which is "" if the card does not state it.

A job is run only by workers of its checkpoint, or by any if it names no card.
"""

NO_CARD: Checkpoint = ("", "")


def checkpoint_of(card: Card) -> Checkpoint:
    """The checkpoint that a card stands for."""
    return card.name, card.files.transformer.sha256 or ""


class _JobPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Progress(_JobPart):
    """Progress of a job; `fraction` is 0 to 1."""

    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    fraction: float = Field(ge=0, le=1)


class StoredImage(_JobPart):
    """A finished image: its URL and its properties."""

    url: str
    seed: int
    width: int
    height: int
    format: ImageFormat
    bytes: int
    sha256: str
    unsigned_sha256: str | None = Field(
        default=None,
        description="SHA-256 of the file before it was signed; null if it is not signed.",
    )
    deleted: bool = Field(
        default=False, description="Whether the owner deleted it: its URL answers 410."
    )

    @property
    def fingerprint(self) -> str:
        """Hash that equal images share; the file's own hash depends on its signature."""
        return self.unsigned_sha256 or self.sha256

    @property
    def name(self) -> str:
        """Name in the image store: the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


class JobWarning(_JobPart):
    """A warning to the client about a job that runs anyway."""

    code: str
    detail: str


class JobError(_JobPart):
    """Why a job failed, as an RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Timings(_JobPart):
    """Seconds spent in each stage; null until the stage is over."""

    queued: float | None = None
    encode: float | None = None
    denoise: float | None = None
    decode: float | None = None
    store: float | None = None


class Job(_JobPart):
    """A snapshot of one job."""

    id: str
    status: Status
    request: ResolvedRequest
    progress: Progress
    queue_position: int | None = None
    eta_seconds: float | None = None
    images: tuple[StoredImage, ...] = ()
    warnings: tuple[JobWarning, ...] = ()
    error: JobError | None = None
    attempts: int = 0
    timings: Timings = Timings()
    worker: str | None = None
    recipe: Recipe | None = Field(
        default=None,
        description="What the worker adds to the request (checkpoint, precision, version); null "
        "until a worker takes the job.",
    )
    replay_of: str | None = Field(default=None, description="Id of the job that this one replays.")
    matches: bool | None = Field(
        default=None,
        description="For a replay that succeeded: whether all images equal the original's by "
        "`unsigned_sha256`, or by `sha256` if they are not signed.",
    )
    webhook: JobWebhook | None = Field(
        default=None, description="The job's webhook and its deliveries."
    )
    created_at: datetime
    started_at: datetime | None = None
    cancel_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None


class WorkerStatus(_JobPart):
    """A worker's last heartbeat."""

    name: str
    is_warm: bool
    seen_at: datetime
    card: str
    device: str
    precision: str
    running: int
    forwards: int
    evaluations: int
    recipe: Recipe | None = None
    experimental: str = "none"
    details: dict[str, Any] = {}

    def runs(self, checkpoint: Checkpoint) -> bool:
        """Whether the worker takes jobs of this checkpoint."""
        known = self.details.get("checkpoints")
        if known is None:  # an older release, which compared nothing
            return self.card == checkpoint[0]
        return isinstance(known, list) and list(checkpoint) in known

    def number(self, name: str) -> float:
        """A finite number among the details; 0 if another release has none, or something else."""
        value = self.details.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        return 0.0
