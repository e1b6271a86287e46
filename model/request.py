"""What may be asked of a checkpoint, checked against its card. Knows neither HTTP nor tensors."""

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from model.card import Card, size_problem

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON client can hold exactly."""

ImageFormat = Literal["png", "webp", "jpeg", "avif"]
MetadataLevel = Literal["full", "minimal", "none"]

_ALLOWED_CONTROLS = frozenset("\n\r\t")


def _is_writable_text(text: str) -> str:
    """Refuse what no tokenizer, log or image file can hold: lone surrogates and control codes."""
    for position, char in enumerate(text):
        category = unicodedata.category(char)
        if category == "Cs" or (category == "Cc" and char not in _ALLOWED_CONTROLS):
            raise ValueError(
                f"character U+{ord(char):04X} at position {position} is not allowed; "
                "use ordinary text"
            )
    return text


Text = Annotated[str, AfterValidator(_is_writable_text)]


class GenerationRequest(BaseModel):
    """A picture as a client asks for it; what is null is filled from the card."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    prompt: Text = Field(
        min_length=1,
        max_length=10_000,
        description="Danbooru-style tags, prose, or both.",
        examples=["masterpiece, best quality, very aesthetic, 1girl, blue hair, smile"],
    )
    negative_prompt: Text | None = Field(
        default=None,
        max_length=10_000,
        description='What to steer away from. null takes the card\'s default, "" none.',
    )
    resolution: str | None = Field(
        default=None, description="A preset of the card, or WIDTHxHEIGHT in pixels."
    )
    steps: int | None = Field(default=None, ge=1, description="Sampling steps.")
    cfg_scale: float | None = Field(
        default=None,
        ge=1,
        description="Guidance; 1 means none and costs half.",
    )
    sampler: str | None = Field(default=None, description="A sampler of the card.")
    scheduler: str | None = Field(default=None, description="A noise schedule of the card.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="null draws one at submission; it is in the answer.",
    )
    num_images: int = Field(default=1, ge=1, le=8, description="Image k uses seed + k.")
    image_format: ImageFormat = "png"
    image_quality: int = Field(default=90, ge=1, le=100, description="For lossy formats.")
    metadata: MetadataLevel = Field(
        default="full",
        description="What is written into the file: recipe and AI mark, the mark alone, nothing.",
    )
    deterministic: bool = Field(
        default=False,
        description="The same bytes every time on the same kind of worker, whatever else runs; "
        "each picture has every forward to itself, which costs speed under load.",
    )
    previews: bool = Field(
        default=False, description="Small pictures on the way, as `preview` events."
    )


class ResolvedRequest(BaseModel):
    """A request in which nothing is left open: the picture is a pure function of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    scheduler: str
    seed: int
    num_images: int
    image_format: ImageFormat
    image_quality: int
    metadata: MetadataLevel
    deterministic: bool = False
    previews: bool = False


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """Something the client should know about a request that was carried out all the same."""

    code: str
    detail: str


def parse_resolution(value: str, card: Card) -> tuple[int, int]:
    """Turn a preset name or "WIDTHxHEIGHT" into (width, height) in pixels.

    Raises:
        ValueError: neither of both, or a size outside the card's limits.
    """
    for preset in card.resolutions:
        if preset.name == value:
            return preset.width, preset.height
    width, separator, height = value.partition("x")
    numbers = (width, height)
    if not separator or not all(n.isascii() and n.isdigit() and len(n) <= 10 for n in numbers):
        names = ", ".join(preset.name for preset in card.resolutions)
        raise ValueError(f"not a preset ({names}) and not WIDTHxHEIGHT")
    problem = size_problem(int(width), int(height), card.limits)
    if problem:
        raise ValueError(problem)
    return int(width), int(height)


def _one_of(names: list[str]) -> Any:
    """A string type of exactly these names, shown as an enumeration in the OpenAPI document."""
    return Literal[tuple(names)]


def request_type(card: Card) -> type[GenerationRequest]:
    """The request model with this card's presets, samplers and limits built in.

    One class per card, so that a single validation reports every wrong field and the OpenAPI
    document lists the choices.
    """

    def check_resolution(value: str) -> str:
        parse_resolution(value, card)
        return value

    resolution = Annotated[str, AfterValidator(check_resolution)]
    limits, presets = card.limits, [preset.name for preset in card.resolutions]
    fields: dict[str, Any] = {
        "resolution": (
            resolution | None,
            Field(
                default=None,
                description=f"A preset ({', '.join(presets)}) or WIDTHxHEIGHT: multiples of "
                f"{limits.multiple}, {limits.min_side} to {limits.max_side} pixels a side, at most "
                f"{limits.max_pixels} pixels. Default {card.defaults.resolution}.",
                examples=presets[:3],
            ),
        ),
        "steps": (
            int | None,
            Field(default=None, ge=1, le=limits.max_steps, description="Sampling steps."),
        ),
        "cfg_scale": (
            float | None,
            Field(
                default=None,
                ge=1,
                le=limits.max_cfg_scale,
                description="Guidance; 1 means none and costs half. "
                f"Default {card.defaults.cfg_scale}.",
            ),
        ),
        "sampler": (_one_of(list(card.samplers)) | None, Field(default=None)),
        "scheduler": (_one_of(list(card.schedulers)) | None, Field(default=None)),
        "num_images": (
            int,
            Field(default=1, ge=1, le=limits.max_images, description="Image k uses seed + k."),
        ),
    }
    return create_model(
        "GenerationRequest", __base__=GenerationRequest, __module__=__name__, **fields
    )


def resolve(request: GenerationRequest, card: Card, *, seed: int) -> ResolvedRequest:
    """Fill every open field from the card; `seed` is used where the request has none.

    Raises:
        ValueError: the resolution is none of this card's.
    """
    defaults = card.defaults
    width, height = parse_resolution(request.resolution or defaults.resolution, card)
    sampler = request.sampler or defaults.sampler
    return ResolvedRequest(
        prompt=request.prompt,
        negative_prompt=(
            defaults.negative_prompt if request.negative_prompt is None else request.negative_prompt
        ),
        width=width,
        height=height,
        steps=request.steps or card.samplers[sampler].default_steps,
        cfg_scale=request.cfg_scale or defaults.cfg_scale,
        sampler=sampler,
        scheduler=request.scheduler or defaults.scheduler,
        seed=seed if request.seed is None else request.seed,
        num_images=request.num_images,
        image_format=request.image_format,
        image_quality=request.image_quality,
        metadata=request.metadata,
        deterministic=request.deterministic,
        previews=request.previews,
    )
