"""What happens to a request: the job's record as Redis holds it and clients see it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.recipes.recipe import Recipe
from model.request import ImageFormat
from model.resolved_request import ResolvedRequest
from worker.webhook import JobWebhook

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

SCHEMA_VERSION = 2
"""Raised when a worker of the previous release could not carry out a job any more."""

READABLE_SCHEMAS = (SCHEMA_VERSION, 1)
"""Whose jobs this release carries out; those of a newer one are left to newer workers."""


class _JobPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Progress(_JobPart):
    """How far a job is; `fraction` is 0 to 1."""

    step: int = Field(ge=0)
    steps: int = Field(ge=1)
    fraction: float = Field(ge=0, le=1)


class StoredImage(_JobPart):
    """A finished picture: where it is and what it is."""

    url: str
    seed: int
    width: int
    height: int
    format: ImageFormat
    bytes: int
    sha256: str
    unsigned_sha256: str | None = Field(
        default=None,
        description="Of the file as it was before it was signed; null where it is not signed.",
    )

    @property
    def fingerprint(self) -> str:
        """The same for every file of the same picture: a signature is never twice the same."""
        return self.unsigned_sha256 or self.sha256

    @property
    def name(self) -> str:
        """The name in the image store: the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


class JobWarning(_JobPart):
    """Something the client should know about a job that is carried out all the same."""

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
    """Seconds spent in each part; null until the part is over."""

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
        default=None, description="What the worker brings to the request; null until it is taken."
    )
    replay_of: str | None = Field(default=None, description="The job that this one repeats.")
    matches: bool | None = Field(
        default=None,
        description="Of a replay that succeeded: whether every picture has the original's SHA-256, "
        "or its `unsigned_sha256` where it is signed.",
    )
    webhook: JobWebhook | None = Field(
        default=None, description="Who is told of the job's events, and what became of that."
    )
    created_at: datetime
    started_at: datetime | None = None
    cancel_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None


class WorkerStatus(_JobPart):
    """What a worker last said of itself."""

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
    details: dict[str, Any] = {}
