"""Translates OpenAI's parameters into requests for `POST /generate`. Free of HTTP and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple

from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field, ValidationError

from api.openai.errors import openai_names
from api.openai.models import check_model_name
from api.submit.submitter import Submitter
from model.card import Card
from model.recipes.aliases import find_sampler
from model.request import GenerationRequest, field_description
from model.sizes import substitute_size
from model.tags import ClientModel

Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]

_SUGGESTED_SIZES: Final = frozenset(
    {"256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792"}
)
"""Sizes that OpenAI's models support or have supported. Its clients offer only these."""

_RENAMED_FIELDS: Final = {
    "num_images": "n",
    "image_format": "output_format",
    "image_quality": "output_compression",
}
"""Fields of `POST /generate` and their names in OpenAI's API."""

HIDDEN_FIELDS: Final = frozenset({*_RENAMED_FIELDS, "previews"})
"""Fields of `POST /generate` that this API does not accept under their own names."""

ALIASES: Final = {"num_inference_steps": "steps", "guidance_scale": "cfg_scale"}
"""Names that other OpenAI-compatible servers use for fields of `POST /generate`."""


def _null_is(default: Any) -> Any:
    """OpenAI treats null like a missing parameter."""
    return BeforeValidator(lambda value: default if value is None else value)


class Parameters(ClientModel):
    """Parameters of OpenAI's API except the prompt. Those without a meaning here are ignored."""

    model: str | None = Field(
        default=None,
        description="A name from `/v1/models`, or one that `KIRAZURI_OPENAI_MODELS` allows. All "
        "names refer to the loaded checkpoint.",
        examples=["gpt-image-1.5"],
    )
    n: Annotated[int, _null_is(1)] = Field(
        default=1, ge=1, description=field_description("num_images"), examples=[1]
    )
    size: Annotated[str, _null_is("auto")] = Field(
        default="auto",
        description="`auto`, WIDTHxHEIGHT or a preset of the card. A size of OpenAI's models that "
        "the checkpoint does not support is replaced by the preset of the most similar shape.",
        examples=["1024x1024"],
    )
    quality: Annotated[Quality, _null_is("auto")] = Field(
        default="auto",
        description="Number of steps, within the range recommended for the sampler: `low` is the "
        "fewest, `xhigh` and `max` are the most; `auto`, `medium` and `standard` are the default. "
        "An explicit `steps` overrides this.",
        examples=["high"],
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None,
        description="Return images as base64 or as URLs. By default URLs if `model` is a DALL-E, "
        "as its clients expect, and base64 otherwise.",
        examples=["url"],
    )
    output_format: Annotated[Literal["png", "webp", "jpeg", "avif"], _null_is("png")] = Field(
        default="png", description=field_description("image_format"), examples=["webp"]
    )
    output_compression: Annotated[int, _null_is(100)] = Field(
        default=100,
        ge=0,
        le=100,
        description="Quality of WebP, JPEG and AVIF files; 100 is the best. PNG is lossless.",
        examples=[90],
    )
    background: Annotated[Literal["auto", "opaque"], _null_is("auto")] = Field(
        default="auto", description="Images are always opaque.", examples=["opaque"]
    )
    moderation: Annotated[Literal["auto", "low"], _null_is("auto")] = Field(
        default="auto",
        description="Ignored: the policy of the operator applies.",
        examples=["auto"],
    )
    stream: Annotated[bool, _null_is(default=False)] = Field(
        default=False, description="Respond with server-sent events.", examples=[False]
    )
    partial_images: Annotated[int, _null_is(0)] = Field(
        default=0,
        ge=0,
        le=3,
        description="Number of previews of each image in a stream. Previews are small WebP files.",
        examples=[2],
    )
    user: str | None = Field(default=None, description="Ignored.", examples=["user-1"])
    safety_identifier: str | None = Field(default=None, description="Ignored.", examples=["user-1"])
    style: str | None = Field(default=None, description="Ignored.", examples=["vivid"])
    complexity: str | None = Field(default=None, description="Ignored.", examples=["low"])
    input_fidelity: str | None = Field(default=None, description="Ignored.", examples=["high"])

    @property
    def has_urls(self) -> bool:
        """Whether the response has URLs instead of files."""
        is_dall_e = self.model is not None and self.model.startswith("dall-e-")
        return self.response_format == "url" or (self.response_format is None and is_dall_e)


class ImagesBody(NamedTuple):
    """The parameters of a call, and the fields of `POST /generate` that its images stand for.

    `names` maps fields to what the client calls them, for errors.
    """

    values: Mapping[str, Any]
    from_files: Mapping[str, Any] = MappingProxyType({})
    names: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OpenAIRequest:
    """A parsed call.

    `body` is the request for `POST /generate`. `quality` is None if the client chose `steps`
    instead. `names` maps fields of `body` to the names that the client uses. `notes` list what
    differs from the call.
    """

    body: GenerationRequest
    parameters: Parameters
    quality: str | None
    names: Mapping[str, str]
    notes: Sequence[str]


async def parse_request(call: ImagesBody, submitter: Submitter, aliases: str) -> OpenAIRequest:
    """Parse the parameters of a call.

    `aliases` are the names of the checkpoint, see `check_model_name`.

    Raises:
        RequestValidationError: one entry for every invalid parameter, by the name the client uses.
        UnknownModel: `model` is not a name of the checkpoint.
    """
    raw = call.values
    own = {name: raw[name] for name in raw if name in Parameters.model_fields}
    errors: list[Any] = [
        {"type": "extra_forbidden", "loc": ("body", name), "msg": "", "input": raw[name]}
        for name in raw
        if name in HIDDEN_FIELDS
    ]
    parameters = Parameters()
    try:
        parameters = Parameters.model_validate(own)
    except ValidationError as exc:
        errors += [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
    check_model_name(parameters.model, submitter.card, aliases)
    fields, notes = _fields(raw, parameters, submitter.card)
    names = _client_names(call)
    try:
        with openai_names(names):
            body = await submitter.validate({**fields, **call.from_files})
    except RequestValidationError as exc:
        errors += exc.errors()
    if errors:
        raise RequestValidationError(errors)
    quality = None if fields.get("steps") and parameters.quality == "auto" else parameters.quality
    return OpenAIRequest(body, parameters, quality, names, notes)


def _client_names(call: ImagesBody) -> dict[str, str]:
    """Fields of `POST /generate` and the names that the client uses for them."""
    names = dict(_RENAMED_FIELDS)
    if "resolution" not in call.values:
        names["resolution"] = "size"
    names |= {field: alias for alias, field in ALIASES.items() if alias in call.values}
    return {**names, **call.names}


def _fields(
    raw: Mapping[str, Any], parameters: Parameters, card: Card
) -> tuple[dict[str, Any], list[str]]:
    """The fields of `POST /generate`, and notes on what differs from the call."""
    fields = {
        ALIASES.get(name, name): value
        for name, value in raw.items()
        if name not in Parameters.model_fields and name not in HIDDEN_FIELDS
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
    """Accept the sampler names of other programs."""
    name = fields.get("sampler")
    found = find_sampler(name) if isinstance(name, str) else None
    if found:
        given = {key: value for key, value in fields.items() if value is not None}
        fields |= found.fields | given | {"sampler": found.sampler}


def _resolution(size: str, card: Card, notes: list[str]) -> str | None:
    if size == "auto":
        return None
    if size not in _SUGGESTED_SIZES:
        return size
    width, height = map(int, size.split("x"))
    width, height = substitute_size(width, height, card)
    fitted = f"{width}x{height}"
    if fitted != size:
        notes.append(f"size {size}: using {fitted}, the nearest size that the checkpoint supports")
    return fitted


def _steps(quality: Quality, sampler: Any, card: Card) -> int | None:
    """Steps for a quality, within the range that the card recommends; None means the default."""
    name = card.defaults.sampler if sampler is None else sampler
    advice = card.samplers.get(name) if isinstance(name, str) else None
    if advice is None:
        return None
    fewest, most = advice.recommended_steps
    middle = (advice.default_steps + most) // 2
    chosen = {"low": fewest, "high": middle, "hd": middle, "xhigh": most, "max": most}
    steps = chosen.get(quality)
    return None if steps is None else min(steps, card.limits.max_steps)
