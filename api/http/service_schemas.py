"""Response bodies about the service itself: health and capabilities."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.http.problem import Problem
from api.http.response_model import ResponseModel
from model.card import (
    Defaults,
    Licence,
    Limitation,
    Limits,
    Prompting,
    Resolution,
    TagGroup,
    Training,
)
from model.files.lora.targets import LoraPart
from model.recipes.recipe import Recipe
from model.request import ImageFormat, MetadataLevel, Upscaler
from model.sampler_catalog import Quality


class Alive(ResponseModel):
    """The process is running."""

    status: Literal["alive"] = "alive"


class Ready(ResponseModel):
    """The service processes jobs."""

    status: Literal["ready"] = "ready"
    warnings: list[str] = Field(default=[], description="Problems that do not stop requests.")


class NotReady(Problem):
    """Why the service cannot process jobs at the moment."""

    reasons: list[str]


class CompletedTag(ResponseModel):
    """A tag that starts with the prefix, or has an alias that does."""

    tag: str = Field(description="The tag or alias, as the field `tags` takes it.")
    category: TagGroup = Field(description="The group of `tags` to which it belongs.")
    count: int | None = Field(
        description="Number of posts; null if it is unknown, as for words of the card."
    )
    alias_of: str | None = Field(description="The tag to write instead; null if it is none.")


class TagCompletions(ResponseModel):
    """Tags that complete a prefix, the most frequent first."""

    items: list[CompletedTag]


class SamplerOption(ResponseModel):
    """An option of a sampler, for `sampler_options` of a request."""

    name: str = Field(description="Key in `sampler_options`.")
    type: Literal["boolean", "integer", "number", "string"] = Field(description="Value type.")
    default: bool | int | float | str = Field(description="Default value.")
    minimum: int | float | None = Field(description="Smallest value; null if there is none.")
    maximum: int | float | None = Field(description="Largest value; null if there is none.")
    choices: list[str] = Field(description="All values of a string; empty for other types.")
    description: str = Field(description="What the option does.")


class SamplerChoice(ResponseModel):
    """A sampler, with advice for this checkpoint.

    `evaluations` counts the model calls at `default_steps`; `is_recommended` says whether the
    authors of the checkpoint recommend it.
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
    """A noise schedule; jobs with one that is not recommended get a warning."""

    name: str
    title: str
    is_recommended: bool
    note: str


class QualityChoice(ResponseModel):
    """A quality of images: `exact`, or a faster one that changes them a little."""

    name: Quality
    work: float = Field(
        description="Evaluations of the model at the card's defaults, relative to `exact`."
    )
    samplers: list[str] = Field(description="The samplers with which it is offered.")
    float8_samplers: list[str] = Field(
        description="Those of them with which a worker whose `experimental` is `float8` uses it."
    )
    note: str


class SeedRange(ResponseModel):
    """Range of accepted seeds, inclusive."""

    minimum: int
    maximum: int


class Features(ResponseModel):
    """Optional features and their limits."""

    events: bool
    cancel: bool
    idempotency: bool
    previews: bool
    deterministic: bool = Field(description="Whether a repeated request can give the same bytes.")
    replay: bool = Field(description="Whether a job can be run again and its images compared.")
    tags: bool = Field(description="Whether prompts can be given as tags by group.")
    dry_run: bool = Field(description="Whether a request can be checked without queueing it.")
    token_counts: bool = Field(description="Whether submissions count the tokens of prompts.")
    webhooks: bool
    prefer_wait_seconds: float = Field(description="Maximum of `Prefer: wait`, in seconds.")
    metadata: list[MetadataLevel]
    max_body_bytes: int = Field(
        description="Maximum size of a request body, in bytes. Images in base64 are a third larger "
        "than their files."
    )
    input_formats: list[str] = Field(description="Image formats of `init_image` and `mask`.")
    max_input_pixels: int = Field(description="Maximum size of an input image, in pixels.")
    max_input_side: int = Field(description="Maximum width and height of an input image.")
    max_input_ratio: int = Field(
        description="Maximum of the longer side of an input image divided by the shorter one."
    )
    upscalers: list[Upscaler] = Field(description="Upscalers for the second pass (`hires`).")


class WorkerChoice(ResponseModel):
    """A worker that has sent a heartbeat recently."""

    name: str
    is_warm: bool
    card: str
    device: str
    precision: str
    running: int
    seen_at: datetime
    experimental: str = Field(
        description="What it tries that is not measured on a GPU (`KIRAZURI_EXPERIMENTAL`): "
        "`float8` for some images (`float8_samplers`), `templates` in compiled code, or `none`."
    )
    recipe: Recipe | None = Field(
        description="Recipe of this worker's images; null until it is warm."
    )


class LoraDescription(ResponseModel):
    """A LoRA that requests can use; fields that its file does not specify are null or empty."""

    name: str
    alias: str | None = Field(
        description="The name that its training gave it (`ss_output_name`). Recipes of other "
        "programs may use it."
    )
    sha256: str | None = Field(
        description="SHA-256 of the file, and of peft's configuration if it is used; null until it "
        "is computed."
    )
    bytes: int
    method: str = Field(
        description="For example lora, dora, lokr or diff; several are joined with +."
    )
    rank: int | None
    parts: list[LoraPart] = Field(description="The parts of the model that it changes.")
    base: str | None = Field(description="The checkpoint it was trained on.")
    architecture: str | None
    trigger_words: list[str]
    warning: str | None = Field(description="The warning that requests with this LoRA get.")


class RefusedLora(ResponseModel):
    """A file in the LoRA folder that requests cannot use."""

    name: str
    reason: str = Field(description="Why it is refused: what it has or lacks.")


class Capabilities(ResponseModel):
    """Everything that a client needs to build a form."""

    name: str
    title: str
    version: str
    summary: str
    base_model: str
    licence: Licence
    resolutions: list[Resolution]
    samplers: list[SamplerChoice]
    schedulers: list[SchedulerChoice]
    qualities: list[QualityChoice]
    limits: Limits
    seed: SeedRange
    defaults: Defaults
    recommended_cfg_scale: tuple[float, float]
    prompting: Prompting
    limitations: list[Limitation]
    training: Training
    formats: list[ImageFormat]
    loras: list[LoraDescription]
    refused_loras: list[RefusedLora]
    features: Features
    workers: list[WorkerChoice]
