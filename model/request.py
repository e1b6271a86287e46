"""What may be asked of a checkpoint, checked against its card. Knows neither HTTP nor tensors."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

from model.card import Card, Limits, enlarged_size, largest_scale, size_problem
from model.errors import PromptError
from model.prompt_grammar import MAX_PROMPT_CHARS, parse, writable
from model.sampler_catalog import OptionValue
from model.sampler_options import check_sampler_options, refuse_sampler
from model.tags import Tags, assemble, has_tags, length_of

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON client can hold exactly."""

WarningCode = Literal[
    "artist_prefix",
    "cfg_scale_not_recommended",
    "duplicate_tags",
    "lora_base_unknown",
    "lora_other_base",
    "picture_fitted",
    "prompt_cut",
    "rating_held",
    "scheduler_not_recommended",
    "short_prompt",
    "size_not_trained",
    "steps_not_recommended",
    "tag_order",
    "underscores_in_tags",
    "unescaped_parentheses",
    "unknown_quality_tag",
    "unknown_safety_tag",
    "unknown_syntax",
]
"""Every warning there is; docs/prompts.md explains each."""

MAX_LORAS = 8
_MAX_NAMES_SHOWN = 100

ImageFormat = Literal["png", "webp", "jpeg", "avif"]
MetadataLevel = Literal["full", "minimal", "none"]
Upscaler = Literal["latent", "lanczos"]

MAX_PICTURE_CHARS = 32_000_000
"""Of a picture in base64: 24 MB of file. The service's limit to bodies is usually lower."""


def _is_readable_prompt(text: str) -> str:
    """Refuse weights and nesting out of bounds, before a worker would have to."""
    try:
        parse(text)
    except PromptError as exc:
        context = {"reason": str(exc), "le": exc.limit}
        raise PydanticCustomError("prompt_brackets", "{reason}", context) from exc
    return text


Text = Annotated[
    str,
    Field(max_length=MAX_PROMPT_CHARS),
    AfterValidator(writable),
    AfterValidator(_is_readable_prompt),
]

ClientOptionValue = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]})
]
"""Of a sampler's option; which type and limits it has depends on the sampler."""


def _needs_init_image(value: Any, info: ValidationInfo) -> Any:
    """Refuse what says how to treat a picture where there is none."""
    if value is not None and info.data.get("init_image", "") is None:
        raise ValueError("needs init_image: it says what becomes of that picture")
    return value


class Hires(BaseModel):
    """A second pass at a higher resolution, as a client asks for it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    scale: float = Field(
        gt=1,
        le=8,
        description="Width and height times this, rounded to the multiple of sizes; the result "
        "must lie within the card's limits.",
        examples=[1.5],
    )
    steps: int | None = Field(
        default=None, ge=1, description="Steps of the second pass; null: as many as the first."
    )
    strength: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How much the second pass may change; null takes the card's default.",
    )
    upscaler: Upscaler = Field(
        default="lanczos",
        description="`lanczos` enlarges the picture and encodes it again; `latent` enlarges the "
        "latents, which saves that and needs a strength of 0.5 or more to look right.",
    )


class LoraChoice(BaseModel):
    """A LoRA to be merged into the weights for this picture; 0 is none, negative the opposite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    name: str = Field(
        min_length=1,
        max_length=200,
        description="A name from /capabilities.",
        examples=["watercolor"],
    )
    weight: float = Field(
        default=1.0, ge=-4, le=4, description="How strongly it is applied.", examples=[0.8]
    )


class ResolvedLora(BaseModel):
    """A LoRA of a resolved request: the file with exactly this content."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    weight: float
    sha256: str


def _each_once(loras: list[LoraChoice]) -> list[LoraChoice]:
    names = [lora.name for lora in loras]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: each LoRA once; add the weights up")
    return loras


LoraSet = tuple[ResolvedLora, ...]
"""LoRAs in the order in which they are applied."""


class GenerationRequest(BaseModel):
    """A picture as a client asks for it; what is null is filled from the card."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    tags: Tags | None = Field(
        default=None,
        description="Tags by group, put before `prompt` in the order of the card.",
    )
    prompt: Text | None = Field(
        default=None,
        validate_default=True,
        description="Danbooru-style tags, prose, or both. Required unless there are `tags`.",
        examples=["masterpiece, best quality, very aesthetic, 1girl, blue hair, smile"],
    )
    negative_prompt: Text | None = Field(
        default=None,
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
    sampler_options: dict[str, ClientOptionValue] | None = Field(
        default=None,
        max_length=16,
        description="Options of the sampler by name; `/capabilities` lists them with their limits.",
    )
    scheduler: str | None = Field(default=None, description="A noise schedule of the card.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="null draws one at submission; it is in the answer.",
    )
    num_images: int = Field(default=1, ge=1, le=8, description="Image k uses seed + k.")
    init_image: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PICTURE_CHARS,
        description="The picture to start from: PNG, JPEG, WebP or AVIF as base64 or data URL, or "
        "the name or URL of an image of this service. It is scaled and cropped to `resolution`; "
        "without one its own size is taken, as near as the card's limits allow.",
    )
    strength: Annotated[float | None, AfterValidator(_needs_init_image)] = Field(
        default=None,
        ge=0,
        le=1,
        description="How much of `init_image` may change: 0 nothing, 1 everything. null takes "
        "the card's default.",
    )
    mask: Annotated[str | None, AfterValidator(_needs_init_image)] = Field(
        default=None,
        min_length=1,
        max_length=MAX_PICTURE_CHARS,
        description="What of `init_image` is repainted: a picture of its size, in the same forms; "
        "white is repainted, black stays exactly as it is, grey is mixed.",
    )
    hires: Hires | None = Field(
        default=None, description="A second pass at a higher resolution; null: none."
    )
    loras: Annotated[list[LoraChoice], AfterValidator(_each_once)] = Field(
        default=[],
        max_length=MAX_LORAS,
        description="LoRAs of the service's folder, applied in this order; each name once.",
        examples=[[{"name": "watercolor", "weight": 0.8}]],
    )
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

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        """A prompt, tags or both; `tags` stands first to be known here."""
        if "tags" not in info.data:
            return prompt  # they are wrong, which has an entry of its own
        tags: Tags | None = info.data["tags"]
        if not prompt and not has_tags(tags):
            if prompt is None:
                raise PydanticKnownError("missing")
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        length = length_of(tags) + len(prompt or "")
        if length > MAX_PROMPT_CHARS:
            context = {"length": length, "le": MAX_PROMPT_CHARS}
            raise PydanticCustomError(
                "prompt_too_long",
                "tags and prompt together have {length} characters; at most {le} are allowed",
                context,
            )
        return prompt


class ResolvedHires(BaseModel):
    """A second pass of `steps` steps that ends at `width` x `height` pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scale: float
    width: int
    height: int
    steps: int
    strength: float
    upscaler: Upscaler


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
    sampler_options: dict[str, OptionValue] = {}
    loras: LoraSet = ()
    init_image: str | None = None
    strength: float | None = None
    mask: str | None = None
    hires: ResolvedHires | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names in the image store of the pictures that it starts from."""
        return tuple(dict.fromkeys(name for name in (self.init_image, self.mask) if name))


@dataclass(frozen=True, slots=True)
class InputNames:
    """The pictures of a request once they are stored, by name; both are `width` x `height`."""

    init_image: str
    mask: str | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """Something the client should know about a request that was carried out all the same."""

    code: WarningCode
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


def check_hires(hires: Hires, width: int, height: int, limits: Limits) -> None:
    """Refuse a second pass that would leave the card's limits.

    Raises:
        ValidationError: at the field `scale`, with the largest one that is possible.
    """
    size = enlarged_size(width, height, hires.scale, limits)
    problem = size_problem(*size, limits)
    if problem is None:
        return
    most = largest_scale(width, height, limits)
    message = f"{width}x{height} times {hires.scale:g}: {problem}"
    error = PydanticCustomError(
        "hires_size", "{message}; at most {le} is possible", {"message": message, "le": most}
    )
    raise ValidationError.from_exception_data(
        "Hires", [InitErrorDetails(type=error, loc=("scale",), input=hires.scale)]
    )


def _one_of(names: list[str]) -> Any:
    """A string type of exactly these names, shown as an enumeration in the OpenAPI document."""
    return Literal[tuple(names)]


def _lora_choices(names: Callable[[], Collection[str]]) -> Any:
    """The type of `loras` where `names` tells which there are at the moment."""

    def check(name: str) -> str:
        known = names()
        if name not in known:
            raise PydanticCustomError(
                "lora_unknown",
                "there is no LoRA of this name; GET /capabilities lists them",
                {"allowed": list(known)[:_MAX_NAMES_SHOWN]},
            )
        return name

    choice = create_model(
        "LoraChoice",
        __base__=LoraChoice,
        __module__=__name__,
        name=(Annotated[str, AfterValidator(check)], LoraChoice.model_fields["name"]),
    )
    return Annotated[list[choice], AfterValidator(_each_once)]


def request_type(
    card: Card, lora_names: Callable[[], Collection[str]] = tuple
) -> type[GenerationRequest]:
    """The request model with this card's presets, samplers and limits built in.

    One class per card, so that a single validation reports every wrong field and the OpenAPI
    document lists the choices. `lora_names` is asked for every LoRA of a request.
    """

    def check_resolution(value: str) -> str:
        parse_resolution(value, card)
        return value

    def check_options(
        value: dict[str, ClientOptionValue] | None, info: ValidationInfo
    ) -> dict[str, ClientOptionValue] | None:
        sampler = info.data.get("sampler", "") or card.defaults.sampler
        # Of a sampler that is wrong itself nothing can be said about the options.
        if not value or "sampler" not in info.data:
            return value
        return check_sampler_options(sampler, value)

    def refuse(name: Any) -> Any:
        return refuse_sampler(name, list(card.samplers))

    def check_size(hires: Hires | None, info: ValidationInfo) -> Hires | None:
        # Without a resolution a picture's own size counts, which is known only when it is opened.
        resolution = info.data.get("resolution", "")
        is_of_picture = resolution is None and info.data.get("init_image", "") is not None
        if hires is not None and resolution != "" and not is_of_picture:
            size = parse_resolution(resolution or card.defaults.resolution, card)
            check_hires(hires, *size, card.limits)
        return hires

    resolution = Annotated[str, AfterValidator(check_resolution)]
    limits, presets = card.limits, [preset.name for preset in card.resolutions]
    hires = create_model(
        "Hires",
        __base__=Hires,
        __module__=__name__,
        steps=(
            int | None,
            Field(
                default=None,
                ge=1,
                le=limits.max_steps,
                description=Hires.model_fields["steps"].description,
            ),
        ),
    )
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
        "sampler": (
            Annotated[_one_of(list(card.samplers)) | None, BeforeValidator(refuse)],
            Field(default=None),
        ),
        "sampler_options": (
            Annotated[dict[str, ClientOptionValue] | None, AfterValidator(check_options)],
            GenerationRequest.model_fields["sampler_options"],
        ),
        "scheduler": (_one_of(list(card.schedulers)) | None, Field(default=None)),
        "loras": (
            _lora_choices(lora_names),
            GenerationRequest.model_fields["loras"],
        ),
        "num_images": (
            int,
            Field(default=1, ge=1, le=limits.max_images, description="Image k uses seed + k."),
        ),
        "hires": (
            Annotated[hires | None, AfterValidator(check_size)],
            Field(default=None, description=GenerationRequest.model_fields["hires"].description),
        ),
    }
    return create_model(
        "GenerationRequest", __base__=GenerationRequest, __module__=__name__, **fields
    )


def resolve(
    request: GenerationRequest,
    card: Card,
    *,
    seed: int,
    inputs: InputNames | None = None,
    lora_hashes: Mapping[str, str] = MappingProxyType({}),
) -> ResolvedRequest:
    """Fill every open field from the card; `seed` is used where the request has none.

    Tags are not kept: the prompt that they make is. `inputs` are the request's pictures, which
    say its size; `lora_hashes` has the SHA-256 of the file of every LoRA that it names.

    Raises:
        ValueError: the resolution is none of this card's, an option none of the sampler's, or the
            second pass leaves the card's limits.
        KeyError: a LoRA's hash is not given.
    """
    defaults = card.defaults
    width, height = (
        (inputs.width, inputs.height)
        if inputs
        else parse_resolution(request.resolution or defaults.resolution, card)
    )
    sampler = request.sampler or defaults.sampler
    steps = request.steps or card.samplers[sampler].default_steps
    strength = defaults.strength if request.strength is None else request.strength
    prompt, negative_prompt = prompts_of(request, card)
    return ResolvedRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        steps=steps,
        cfg_scale=request.cfg_scale or defaults.cfg_scale,
        sampler=sampler,
        scheduler=request.scheduler or defaults.scheduler,
        seed=seed if request.seed is None else request.seed,
        num_images=request.num_images,
        image_format=request.image_format,
        image_quality=request.image_quality,
        metadata=request.metadata,
        loras=tuple(
            ResolvedLora(name=lora.name, weight=lora.weight, sha256=lora_hashes[lora.name])
            for lora in request.loras
        ),
        deterministic=request.deterministic,
        previews=request.previews,
        sampler_options=check_sampler_options(sampler, request.sampler_options or {}),
        init_image=inputs.init_image if inputs else None,
        strength=strength if inputs else None,
        mask=inputs.mask if inputs else None,
        hires=_resolve_hires(request.hires, card, width, height, steps=steps),
    )


def prompts_of(request: GenerationRequest, card: Card) -> tuple[str, str]:
    """Prompt and negative prompt as they are run: tags assembled, the card's default filled in."""
    negative = request.negative_prompt
    return (
        assemble(request.tags, card.prompting, request.prompt or ""),
        card.defaults.negative_prompt if negative is None else negative,
    )


def _resolve_hires(
    hires: Hires | None, card: Card, width: int, height: int, *, steps: int
) -> ResolvedHires | None:
    if hires is None:
        return None
    check_hires(hires, width, height, card.limits)
    target = enlarged_size(width, height, hires.scale, card.limits)
    return ResolvedHires(
        scale=hires.scale,
        width=target[0],
        height=target[1],
        steps=hires.steps or steps,
        strength=card.defaults.hires_strength if hires.strength is None else hires.strength,
        upscaler=hires.upscaler,
    )
