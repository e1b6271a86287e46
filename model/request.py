"""Defines what a client may ask for: the fields of a generation request and their checks."""

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from model.errors import PromptError, validate_bounded
from model.prompt_grammar import (
    MAX_PROMPT_CHARS,
    check_characters,
    clean_prompt,
    drop_invisible,
    parse_prompt,
)
from model.sampler_catalog import Quality
from model.tags import ClientModel, Tags, has_tags, max_prompt_length

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON client can represent exactly."""

DRAWN_SEEDS = 2**32
"""The seeds of a job whose seed is drawn are below this: other programs take no larger ones."""

MAX_LORAS, MAX_OPTIONS, MAX_NAME_CHARS = 8, 16, 200
_LORA_SUFFIX = ".safetensors"

MAX_PICTURE_CHARS = 32_000_000
"""Maximum base64 characters of a picture, 24 MB of file. The body limit is usually lower."""

ImageFormat = Literal["png", "webp", "jpeg", "avif"]
MetadataLevel = Literal["full", "minimal", "none"]
Upscaler = Literal["latent", "lanczos"]

WarningCode = Literal[
    "artist_prefix", "cfg_scale_not_recommended", "characters_dropped", "duplicate_tags",
    "full_width_brackets", "lora_base_unknown", "lora_other_base", "lora_other_depth",
    "lora_partial", "picture_fitted", "prompt_cut", "rating_held", "scheduler_not_recommended",
    "short_prompt", "size_not_trained", "steps_not_recommended", "tag_order",
    "unbalanced_brackets", "underscores_in_tags", "unescaped_parentheses",
    "unknown_quality_tag", "unknown_safety_tag", "unknown_syntax", "unknown_tag",
]  # fmt: skip
"""All warning codes; docs/prompts.md explains each."""


@dataclass(frozen=True, slots=True)
class RequestWarning:
    """Something the client should know about a request that is accepted anyway."""

    code: WarningCode
    detail: str


def _check_brackets(text: str) -> str:
    """Refuse weights and nesting that are out of bounds before a worker has to."""
    try:
        parse_prompt(text)
    except PromptError as exc:
        context = {"reason": str(exc), "le": exc.limit}
        raise PydanticCustomError("prompt_brackets", "{reason}", context) from exc
    return text


def _clean(text: str) -> str:
    """Clean a prompt. A blank one remains a single blank: it was given, unlike an empty one."""
    return clean_prompt(text).text or (text and " ")


PromptText = Annotated[
    str,
    Field(max_length=MAX_PROMPT_CHARS),
    AfterValidator(check_characters),
    AfterValidator(_clean),
    AfterValidator(_check_brackets),
]

ClientOptionValue = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "number"}, {"type": "string"}]})
]
"""The value of a sampler option before the check; its type and limits depend on the sampler."""


def _check_needs_init_image(value: Any, info: ValidationInfo) -> Any:
    if value is not None and info.data.get("init_image", "") is None:
        raise ValueError("requires init_image, the image that it applies to")
    return value


class Hires(ClientModel):
    """A second pass at a higher resolution, as a client asks for it."""

    scale: float = Field(
        gt=1,
        le=8,
        description="Factor for width and height. The result is rounded to the size multiple and "
        "must lie within the card's limits.",
        examples=[1.5],
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="Sampling steps of the second pass; by default as many as in the first.",
    )
    strength: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="How much the second pass may change: 0 nothing, 1 everything.",
    )
    upscaler: Upscaler = Field(
        default="lanczos",
        description="`lanczos` enlarges the image and encodes it again. `latent` enlarges the "
        "latents, which is faster but needs a strength of at least 0.5 to look right.",
    )


class LoraChoice(ClientModel):
    """A LoRA to merge into the weights for this request."""

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="Name of a LoRA from `/capabilities`.",
        examples=["watercolor"],
    )
    weight: float = Field(
        default=1.0,
        ge=-4,
        le=4,
        description="Strength: 0 has no effect, a negative value reverses the effect.",
        examples=[0.8],
    )


_MAX_ALIKE = 8


def normalized_lora_name(text: str) -> str:
    """A name in one form: compatible characters, slashes, no suffix, lower case."""
    name = unicodedata.normalize("NFKC", text).replace("\\", "/").strip().casefold()
    return name.removesuffix(_LORA_SUFFIX).strip()


def match_lora(text: str, names: Collection[str]) -> str | None:
    """The name that `text` means: the same text, or the only name with the same normal form."""
    if text in names:
        return text
    wanted = normalized_lora_name(text)
    alike = [name for name in names if normalized_lora_name(name) == wanted]
    return alike[0] if len(alike) == 1 else None


def find_lora(text: str, names: Collection[str]) -> str | None:
    """Find a LoRA by its name, or without folders that only one of the two names has.

    `ink`, `style/ink` and `loras/style/ink` are alike; `other/ink` is not `style/ink`.
    """
    found = match_lora(text, names)
    if found is not None:
        return found
    alike = _in_any_folder(text, names)
    return alike[0] if len(alike) == 1 else None


def find_alias(text: str, aliases: Mapping[str, str]) -> str | None:
    """The only name whose alias is `text`; `aliases` are by name."""
    wanted = normalized_lora_name(text)
    found = [name for name, alias in aliases.items() if normalized_lora_name(alias) == wanted]
    return found[0] if len(found) == 1 else None


def why_no_lora(
    text: str, names: Collection[str], refused: Mapping[str, str]
) -> tuple[bool, str] | None:
    """Why no name is found: whether the file is refused, and the reason.

    None if there is no such file.
    """
    wanted = normalized_lora_name(text)
    is_alone = len(_in_any_folder(text, names)) < 2
    name = find_lora(text, refused) if is_alone else match_lora(text, refused)
    if name is not None:
        other = "" if normalized_lora_name(name) == wanted else f", {name},"
        return True, f"the file of this LoRA{other} is refused: {refused[name]}"
    for among in (names, refused):
        alike = [name for name in among if normalized_lora_name(name) == wanted]
        alike = alike or _in_any_folder(text, among)
        if len(alike) > 1:
            return False, f"several LoRAs match: {', '.join(alike[:_MAX_ALIKE])}; write one of them"
    return None


def _in_any_folder(text: str, names: Collection[str]) -> list[str]:
    wanted = f"/{normalized_lora_name(text)}"
    found = {name: f"/{normalized_lora_name(name)}" for name in names}
    return [n for n, path in found.items() if path.endswith(wanted) or wanted.endswith(path)]


def check_unique_loras(loras: list[LoraChoice]) -> list[LoraChoice]:
    """Refuse a LoRA that is listed twice."""
    names = [lora.name for lora in loras]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"{', '.join(repeated)}: list each LoRA only once, with the sum of its weights"
        )
    return loras


class GenerationRequest(ClientModel):
    """A request for images; `prompt` is required unless `tags` has tags.

    Fields that are null take the card's defaults.
    """

    tags: Tags | None = Field(
        default=None,
        description="Tags by group, placed before `prompt` in the card's order.",
    )
    prompt: PromptText | None = Field(
        default=None,
        validate_default=True,
        description="Danbooru-style tags, prose, or both.",
        examples=["masterpiece, best quality, very aesthetic, 1girl, blue hair, smile"],
    )
    negative_prompt: PromptText | None = Field(
        default=None, description='What the images should not show; "" for nothing.'
    )
    resolution: str | None = Field(
        default=None, description="A preset of the card, or WIDTHxHEIGHT in pixels."
    )
    steps: int | None = Field(default=None, ge=1, description="Number of sampling steps.")
    cfg_scale: float | None = Field(
        default=None,
        ge=1,
        description="Guidance scale; 1 turns guidance off and halves the cost.",
    )
    sampler: str | None = Field(default=None, description="Name of a sampler of the card.")
    sampler_options: dict[str, ClientOptionValue] | None = Field(
        default=None,
        max_length=MAX_OPTIONS,
        description="Options of the sampler by name; `/capabilities` lists them with their limits.",
    )
    scheduler: str | None = Field(default=None, description="Name of a noise schedule of the card.")
    seed: int | None = Field(
        default=None,
        ge=-1,
        le=MAX_SEED,
        description="Seed of the first image. By default, and for -1, the service draws one below "
        "2^32 and returns it.",
    )
    num_images: int = Field(
        default=1, ge=1, le=8, description="Number of images; image k uses seed + k."
    )
    init_image: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PICTURE_CHARS,
        description="Image to start from: PNG, JPEG, WebP or AVIF as base64 or data URL, or "
        "the name or URL of an image of this service. It is scaled and cropped to `resolution`; "
        "without `resolution` it keeps its own size as far as the card's limits allow.",
    )
    strength: Annotated[float | None, AfterValidator(_check_needs_init_image)] = Field(
        default=None,
        ge=0,
        le=1,
        description="How much of `init_image` may change: 0 nothing, 1 everything.",
    )
    mask: Annotated[str | None, AfterValidator(_check_needs_init_image)] = Field(
        default=None,
        min_length=1,
        max_length=MAX_PICTURE_CHARS,
        description="Part of `init_image` to repaint, as an image of the same size in the same "
        "forms: white is repainted, black stays exactly as it is, grey is mixed.",
    )
    hires: Hires | None = Field(
        default=None, description="A second pass at a higher resolution; null for none."
    )
    loras: Annotated[list[LoraChoice], AfterValidator(check_unique_loras)] = Field(
        default=[],
        max_length=MAX_LORAS,
        description="LoRAs of the service, applied in this order; each name once.",
        examples=[[{"name": "watercolor", "weight": 0.8}]],
    )
    image_format: ImageFormat = Field(
        default="png", description="File format: png, webp, jpeg or avif."
    )
    image_quality: int = Field(
        default=90, ge=1, le=100, description="Quality of lossy formats, 1 to 100."
    )
    metadata: MetadataLevel = Field(
        default="full",
        description="Metadata in the file: `full` writes the recipe and the AI mark, `minimal` "
        "the AI mark only, `none` nothing.",
    )
    quality: Quality = Field(
        default="exact",
        description="`exact`, or a faster quality of the card, which changes the image a little.",
    )
    deterministic: bool = Field(
        default=False,
        description="Produce the same bytes every time on the same kind of worker, whatever else "
        "it runs. Images are not batched together, which reduces throughput under load.",
    )
    previews: bool = Field(
        default=False, description="Send small previews of the images as `preview` events."
    )
    _dropped: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="wrap")
    @classmethod
    def _note_dropped(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep what the fields no longer show: which characters were dropped from the texts."""
        request = validate_bounded(data, handler, cls.model_fields)
        if isinstance(data, Mapping):
            request._dropped = tuple(_dropped_from(data))
        return request

    @property
    def dropped_warning(self) -> RequestWarning | None:
        """The warning that characters were dropped from the texts of this request, if any were."""
        if not self._dropped:
            return None
        return RequestWarning("characters_dropped", "; ".join(self._dropped))

    @field_validator("prompt")
    @classmethod
    def _check_prompt_or_tags(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        """Require a prompt, tags or both. `tags` is the first field, so it is validated by now."""
        if "tags" not in info.data:
            return prompt  # the tags are wrong, which is reported on its own
        tags: Tags | None = info.data["tags"]
        if not prompt and not has_tags(tags):
            if prompt is None:
                raise PydanticKnownError("missing")
            raise PydanticKnownError("string_too_short", {"min_length": 1})
        if has_tags(tags):
            prompt = prompt and prompt.strip()
        length = max_prompt_length(tags) + len(prompt or "")
        if length > MAX_PROMPT_CHARS:
            context = {"length": length, "le": MAX_PROMPT_CHARS}
            raise PydanticCustomError(
                "prompt_too_long",
                "tags and prompt together have {length} characters; at most {le} are allowed",
                context,
            )
        return prompt

    @field_validator("seed")
    @classmethod
    def _open_if_negative(cls, seed: int | None) -> int | None:
        return None if seed == -1 else seed

    @field_validator("negative_prompt")
    @classmethod
    def _empty_if_blank(cls, negative_prompt: str | None) -> str | None:
        return negative_prompt and negative_prompt.strip()


def _dropped_from(fields: Mapping[str, Any]) -> Iterator[str]:
    """Describe by field what cleaning drops from the texts of valid `fields`."""
    tags = fields.get("tags")
    if isinstance(tags, Mapping):
        joined = ",".join(tag for group in tags.values() for tag in group)
        if dropped := drop_invisible(joined).dropped:
            yield f"tags: dropped {', '.join(dropped)}"
    for name in ("prompt", "negative_prompt"):
        if dropped := clean_prompt(fields.get(name) or "").dropped:
            yield f"{name}: dropped {', '.join(dropped)}"


def field_description(name: str, model: type[BaseModel] = GenerationRequest) -> str:
    """The description of a request field, for other interfaces that offer the same field."""
    return model.model_fields[name].description or ""
