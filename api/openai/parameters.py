"""From OpenAI's parameters to the fields of `POST /generate`. Knows no HTTP and no files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from api.openai.models import check_name
from api.submit.submitter import Submitter
from model.card import Card, substitute_size
from model.recipes.aliases import find_sampler
from model.request import GenerationRequest

Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_SUGGESTED_SIZES: Final = frozenset(
    {"256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792"}
)
"""What OpenAI's models have or had; its clients offer these and no others."""

_OURS: Final = {
    "num_images": "n",
    "image_format": "output_format",
    "image_quality": "output_compression",
}
"""Fields that have another name here, or are not asked for by themselves."""

_NOT_OFFERED: Final = frozenset({*_OURS, "previews"})
_PEERS: Final = {"num_inference_steps": "steps", "guidance_scale": "cfg_scale"}
"""Other servers' names for what OpenAI does not have."""


def _no_null(value: Any, default: Any) -> Any:
    return default if value is None else value


def _null_is(default: Any) -> Any:
    """OpenAI takes null for a parameter that was left out."""
    return BeforeValidator(lambda value: _no_null(value, default))


class Parameters(BaseModel):
    """What OpenAI's API knows beside the prompt. What has no meaning here is taken and ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str | None = Field(
        default=None,
        description="A name from `/v1/models`, or one that `KIRAZURI_OPENAI_MODELS` allows; there "
        "is one checkpoint, whatever it is called.",
        examples=["gpt-image-1.5"],
    )
    n: Annotated[int, _null_is(1)] = Field(
        default=1, ge=1, description="How many pictures; picture k has seed + k.", examples=[1]
    )
    size: Annotated[str, _null_is("auto")] = Field(
        default="auto",
        description="`auto`, WIDTHxHEIGHT or a preset of the card. OpenAI's own sizes become the "
        "preset of the nearest shape where they are not possible; any other has to be possible.",
        examples=["1024x1024"],
    )
    quality: Annotated[Quality, _null_is("auto")] = Field(
        default="auto",
        description="Steps within what is recommended for the sampler: `low` the fewest, `xhigh` "
        "and `max` the most; `auto`, `medium` and `standard` are the default. `steps` goes first.",
        examples=["high"],
    )
    response_format: Annotated[Literal["b64_json", "url"], _null_is("b64_json")] = Field(
        default="b64_json", description="Pictures themselves, or URLs.", examples=["url"]
    )
    output_format: Annotated[Literal["png", "webp", "jpeg", "avif"], _null_is("png")] = Field(
        default="png", description="Of the files.", examples=["webp"]
    )
    output_compression: Annotated[int, _null_is(100)] = Field(
        default=100,
        ge=0,
        le=100,
        description="The quality of lossy files, 100 the best; PNG has none.",
        examples=[90],
    )
    background: Annotated[Literal["auto", "opaque"], _null_is("auto")] = Field(
        default="auto", description="Pictures are opaque.", examples=["opaque"]
    )
    moderation: Annotated[Literal["auto", "low"], _null_is("auto")] = Field(
        default="auto",
        description="Ignored: what is allowed is the operator's policy.",
        examples=["auto"],
    )
    stream: Annotated[bool, _null_is(default=False)] = Field(
        default=False, description="Server-sent events instead of one answer.", examples=[False]
    )
    partial_images: Annotated[int, _null_is(0)] = Field(
        default=0,
        ge=0,
        le=3,
        description="How many previews a stream has of each picture: small WebP files.",
        examples=[2],
    )
    user: str | None = Field(default=None, description="Ignored.", examples=["user-1"])
    safety_identifier: str | None = Field(default=None, description="Ignored.", examples=["user-1"])
    style: str | None = Field(default=None, description="Ignored.", examples=["vivid"])
    complexity: str | None = Field(default=None, description="Ignored.", examples=["low"])
    input_fidelity: str | None = Field(default=None, description="Ignored.", examples=["high"])


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """A call as this service has it.

    `names` are our fields' names as the client knows them, `notes` tell what is not as asked.
    """

    body: GenerationRequest
    parameters: Parameters
    quality: str | None
    names: Mapping[str, str]
    notes: Sequence[str]


async def read_wish(
    raw: Mapping[str, Any],
    submitter: Submitter,
    aliases: str,
    *,
    given: Mapping[str, Any],
) -> OpenAIRequest:
    """The call that these parameters make; `given` are fields of ours that came otherwise.

    Raises:
        RequestValidationError: one entry for every wrong parameter, by its name here.
        UnknownModel: `model` is no name of the checkpoint.
    """
    own = {name: raw[name] for name in raw if name in Parameters.model_fields}
    errors: list[Any] = [
        {"type": "extra_forbidden", "loc": ("body", name), "msg": "", "input": raw[name]}
        for name in raw
        if name in _NOT_OFFERED
    ]
    parameters = Parameters()
    try:
        parameters = Parameters.model_validate(own)
    except ValidationError as exc:
        errors += [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
    check_name(parameters.model, submitter.card, aliases)
    fields, notes = _fields(raw, parameters, submitter.card)
    names = _names(raw, given)
    try:
        with naming(names):
            body = await submitter.validate({**fields, **given})
    except RequestValidationError as exc:
        errors += exc.errors()
    if errors:
        raise RequestValidationError(errors)
    quality = None if fields.get("steps") and parameters.quality == "auto" else parameters.quality
    return OpenAIRequest(body, parameters, quality, names, notes)


def _names(raw: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Our fields' names as the client knows them."""
    names = dict(_OURS)
    if "resolution" not in raw:
        names["resolution"] = "size"
    if "init_image" in given:
        names["init_image"] = "image"
    names |= {ours: theirs for theirs, ours in _PEERS.items() if theirs in raw}
    return names


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Tell wrong fields by other names."""
    try:
        yield
    except RequestValidationError as exc:
        raise RequestValidationError([_renamed(error, names) for error in exc.errors()]) from exc


def _renamed(error: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    match error["loc"]:
        case ("body", str(name), *rest):
            return {**error, "loc": ("body", names.get(name, name), *rest)}
    return dict(error)


def _fields(
    raw: Mapping[str, Any], parameters: Parameters, card: Card
) -> tuple[dict[str, Any], list[str]]:
    """The fields of a request of ours, and what is not as it was asked."""
    fields = {
        _PEERS.get(name, name): value
        for name, value in raw.items()
        if name not in Parameters.model_fields and name not in _NOT_OFFERED
    }
    notes: list[str] = []
    _take_sampler(fields)
    if fields.get("resolution") is None:
        fields["resolution"] = _resolution(parameters.size, card, notes)
    if fields.get("steps") is None:
        fields["steps"] = _steps(parameters.quality, fields.get("sampler"), card)
    fields["num_images"] = parameters.n
    fields["image_format"] = parameters.output_format
    fields["image_quality"] = max(1, parameters.output_compression)
    fields["previews"] = parameters.stream and parameters.partial_images > 0
    return fields, notes


def _take_sampler(fields: dict[str, Any]) -> None:
    """Know samplers by the names that other programs have for them."""
    name = fields.get("sampler")
    found = find_sampler(name) if isinstance(name, str) else None
    if found is None:
        return
    fields["sampler"] = found.sampler
    if found.options and fields.get("sampler_options") is None:
        fields["sampler_options"] = dict(found.options)
    if found.schedule and fields.get("scheduler") is None:
        fields["scheduler"] = found.schedule


def _resolution(size: str, card: Card, notes: list[str]) -> str | None:
    if size == "auto":
        return None
    if size not in _SUGGESTED_SIZES:
        return size
    width, height = map(int, size.split("x"))
    width, height = substitute_size(width, height, card)
    made = f"{width}x{height}"
    if made != size:
        notes.append(f"size {size}: {made} is the nearest that the checkpoint knows")
    return made


def _steps(quality: Quality, sampler: Any, card: Card) -> int | None:
    """Steps within the card's advice for the sampler; None for its default."""
    name = card.defaults.sampler if sampler is None else sampler
    advice = card.samplers.get(name) if isinstance(name, str) else None
    if advice is None:
        return None
    fewest, most = advice.recommended_steps
    middle = (advice.default_steps + most) // 2
    chosen = {"low": fewest, "high": middle, "hd": middle, "xhigh": most, "max": most}
    steps = chosen.get(quality)
    return None if steps is None else min(steps, card.limits.max_steps)


def documented_type(
    name: str, request: type[GenerationRequest], *, without: Sequence[str] = ()
) -> type[BaseModel]:
    """OpenAI's parameters with our own fields beside them, to be described and nothing else."""
    hidden = {*_NOT_OFFERED, *without, "prompt"}
    extras: dict[str, Any] = {
        field: (info.annotation, info)
        for field, info in request.model_fields.items()
        if field not in hidden
    }
    prompt: Any = (
        str,
        Field(
            max_length=10_000,
            description="Danbooru-style tags, prose, or both.",
            examples=["masterpiece, best quality, 1girl, blue hair, smile"],
        ),
    )
    return create_model(name, __base__=Parameters, __module__=__name__, prompt=prompt, **extras)
