"""Shapes that exist only over HTTP: a job with its links, problems, capabilities, readiness."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.card import (
    Defaults,
    Licence,
    Limitation,
    Limits,
    Prompting,
    Resolution,
    Training,
)
from model.files.lora_keys import LoraPart
from model.recipes.recipe import Recipe
from model.request import ImageFormat, MetadataLevel, Upscaler
from worker.job import TERMINAL, Job, StoredImage


class ResponseModel(BaseModel):
    """Base of all response bodies: immutable."""

    model_config = ConfigDict(frozen=True)


class Links(ResponseModel):
    """Absolute URLs of what can be done with a job; `cancel` is null once it has finished."""

    self: str
    events: str
    cancel: str | None


class JobLinks(ResponseModel):
    """URLs that can be read without a header, until `expires_at`."""

    events: str = Field(description="The stream of the job's events.")
    images: list[str] = Field(description="Its images so far, in their order.")
    expires_at: datetime = Field(description="A stream that was opened before goes on.")


class JobView(Job):
    """A job as clients see it: image URLs are absolute, links say what can be done."""

    links: Links


class JobList(ResponseModel):
    """A page of the caller's jobs."""

    items: list[JobView] = Field(description="Newest first.")
    next: str | None = Field(description="`cursor` of the next page; null where there is none.")


def absolute(url: str, base_url: str) -> str:
    """Put `base_url` before a path of this service; leave whole URLs (another store's) alone."""
    return base_url + url if url.startswith("/") else url


def job_view(job: Job, base_url: str) -> JobView:
    """The job with absolute URLs under `base_url`, which has no slash at its end."""
    own_url = f"{base_url}/jobs/{job.id}"
    images = tuple(
        StoredImage(**{**dict(image), "url": absolute(image.url, base_url)}) for image in job.images
    )
    links = Links(
        self=own_url,
        events=f"{own_url}/events",
        cancel=None if job.status in TERMINAL else own_url,
    )
    return JobView(**{**dict(job), "images": images, "links": links})


class FieldError(ResponseModel):
    """One wrong field: where (a JSON pointer into the body), why, and the limit it broke."""

    pointer: str
    detail: str
    limit: int | float | str | list[str] | None = None


class Problem(ResponseModel):
    """An RFC 9457 problem; `instance` is the request id, `type` answers with an explanation."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError] = []
    rule: str | None = Field(
        default=None,
        description="Of `policy_blocked`: the name of the rule that refuses.",
        examples=["max_rating"],
    )


class ProblemExplanation(ResponseModel):
    """What a problem type means and what to do about it."""

    type: str
    code: str
    title: str
    status: int
    explanation: str


class Alive(ResponseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(ResponseModel):
    """Requests are being carried out."""

    status: Literal["ready"] = "ready"


class NotReady(Problem):
    """Why requests would not be carried out now."""

    reasons: list[str]


class SamplerOption(ResponseModel):
    """An option of a sampler, for `sampler_options` of a request."""

    name: str = Field(description="Key in `sampler_options`.")
    type: Literal["boolean", "integer", "number", "string"] = Field(description="Of the value.")
    default: bool | int | float | str = Field(description="What holds where a request is silent.")
    minimum: int | float | None = Field(description="The smallest value; null where none is.")
    maximum: int | float | None = Field(description="The largest value; null where none is.")
    choices: list[str] = Field(description="All values of a string; empty for other types.")
    description: str = Field(description="What the option does.")


class SamplerChoice(ResponseModel):
    """A sampler with the checkpoint's advice; `evaluations` are model calls at `default_steps`.

    `is_recommended` says that the checkpoint's authors name it.
    """

    name: str
    title: str
    default_steps: int
    recommended_steps: tuple[int, int]
    evaluations: int
    is_stochastic: bool
    is_recommended: bool
    note: str
    options: list[SamplerOption]


class SchedulerChoice(ResponseModel):
    """A noise schedule; with one that is not recommended a job carries a warning."""

    name: str
    title: str
    is_recommended: bool
    note: str


class SeedRange(ResponseModel):
    """Seeds that are accepted, both ends included."""

    minimum: int
    maximum: int


class Features(ResponseModel):
    """What this service can do beyond a plain request."""

    events: bool
    cancel: bool
    idempotency: bool
    previews: bool
    deterministic: bool = Field(description="Whether requests can be repeated to the byte.")
    replay: bool = Field(description="Whether a job can be run again and compared.")
    tags: bool = Field(description="Whether prompts can be given as tags by group.")
    dry_run: bool = Field(description="Whether a request can be tried without being queued.")
    token_counts: bool = Field(description="Whether prompts are counted in tokens at submission.")
    webhooks: bool
    prefer_wait_seconds: float = Field(description="The longest `Prefer: wait` that is honoured.")
    metadata: list[MetadataLevel]
    input_formats: list[str] = Field(description="What `init_image` and `mask` may be.")
    max_input_pixels: int = Field(description="The largest picture that is taken, in pixels.")
    upscalers: list[Upscaler] = Field(description="What enlarges before a second pass.")


class WorkerChoice(ResponseModel):
    """A worker that was heard from lately."""

    name: str
    is_warm: bool
    card: str
    device: str
    precision: str
    running: int
    seen_at: datetime
    recipe: Recipe | None = Field(description="What it brings to a picture; null until it is warm.")


class LoraDescription(ResponseModel):
    """A LoRA that a request may name; what its file does not tell is null or empty."""

    name: str
    sha256: str | None = Field(description="null while the file is still being read.")
    bytes: int
    method: str = Field(description="lora, dora, lokr or loha; mixtures are joined by +.")
    rank: int | None
    parts: list[LoraPart] = Field(description="What it changes.")
    base: str | None = Field(description="The checkpoint it was trained on.")
    architecture: str | None
    trigger_words: list[str]
    warning: str | None = Field(description="What a request that uses it would be warned of.")


class Capabilities(ResponseModel):
    """Everything a client needs to build a form."""

    name: str
    title: str
    version: str
    summary: str
    base_model: str
    licence: Licence
    resolutions: list[Resolution]
    samplers: list[SamplerChoice]
    schedulers: list[SchedulerChoice]
    limits: Limits
    seed: SeedRange
    defaults: Defaults
    recommended_cfg_scale: tuple[float, float]
    prompting: Prompting
    limitations: list[Limitation]
    training: Training
    formats: list[ImageFormat]
    loras: list[LoraDescription]
    features: Features
    workers: list[WorkerChoice]
