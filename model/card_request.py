"""Builds the request model of a card, which checks a request against the card."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from model.card import Card, Limits
from model.request import (
    ClientOptionValue,
    GenerationRequest,
    Hires,
    LoraChoice,
    check_unique_loras,
    field_description,
    find_lora,
    match_lora,
    normalized_lora_name,
    why_no_lora,
)
from model.sampler_catalog import (
    REFUSED_SAMPLERS,
    SAMPLER_CATALOG,
    OptionInfo,
    OptionValue,
    Quality,
)
from model.sizes import enlarged_size, largest_scale, parse_resolution
from model.tags import whole_number

_MAX_NAMES_SHOWN = 100


def request_type(
    card: Card,
    lora_names: Callable[[], Collection[str]] = tuple,
    refused_loras: Callable[[], Mapping[str, str]] = dict,
) -> type[GenerationRequest]:
    """The request model with the presets, samplers and limits of this card.

    Each card has a model of its own: one validation reports every wrong field, and the OpenAPI
    document lists the choices. `lora_names` is called for every LoRA of a request, and
    `refused_loras`, which gives reasons by name, for every unknown one.
    """
    limits, fields = card.limits, GenerationRequest.model_fields
    presets = [preset.name for preset in card.resolutions]
    resolution = Field(
        default=None,
        description=f"A preset ({', '.join(presets)}) or WIDTHxHEIGHT in pixels: multiples of "
        f"{limits.multiple}, {limits.min_side} to {limits.max_side} per side, at most "
        f"{limits.max_pixels} pixels in total. Default {card.defaults.resolution}.",
        examples=presets[:3],
    )
    cfg_scale = Field(
        default=None,
        ge=1,
        le=limits.max_cfg_scale,
        description=f"{field_description('cfg_scale')} Default {card.defaults.cfg_scale}.",
    )
    steps = Field(default=None, ge=1, le=limits.max_steps, description=field_description("steps"))
    num_images = Field(
        default=1, ge=1, le=limits.max_images, description=field_description("num_images")
    )
    types: dict[str, Any] = {
        "resolution": (_resolution_type(card) | None, resolution),
        "steps": (int | None, steps),
        "cfg_scale": (float | None, cfg_scale),
        "sampler": (_sampler_type(card), fields["sampler"]),
        "sampler_options": (_sampler_options_type(card), fields["sampler_options"]),
        "scheduler": (_one_of(card.schedulers) | None, fields["scheduler"]),
        "loras": (_loras_type(lora_names, refused_loras), fields["loras"]),
        "num_images": (int, num_images),
        "hires": (_hires_type(card), fields["hires"]),
        "quality": (_quality_type(card), fields["quality"]),
    }
    return create_model(
        "GenerationRequest", __base__=GenerationRequest, __module__=__name__, **types
    )


def _one_of(names: Collection[str]) -> Any:
    """A string type of exactly these names, an enumeration in the OpenAPI document."""
    return Literal[tuple(names)]


def _resolution_type(card: Card) -> Any:
    def check(value: str) -> str:
        parse_resolution(value, card)
        return value

    return Annotated[str, AfterValidator(check)]


def _sampler_type(card: Card) -> Any:
    """One of the card's samplers; a well-known other one is refused with the reason."""

    def refuse(name: Any) -> Any:
        if isinstance(name, str) and name in REFUSED_SAMPLERS and name not in card.samplers:
            raise PydanticCustomError(
                "sampler_refused",
                "{name} is not offered: {reason}",
                {
                    "name": name,
                    "reason": REFUSED_SAMPLERS[name],
                    "expected": _quoted(card.samplers),
                },
            )
        return name

    return Annotated[_one_of(card.samplers) | None, BeforeValidator(refuse)]


def _sampler_options_type(card: Card) -> Any:
    def check(
        value: dict[str, ClientOptionValue] | None, info: ValidationInfo
    ) -> dict[str, ClientOptionValue] | None:
        # The options of a wrong sampler cannot be checked.
        if not value or "sampler" not in info.data:
            return value
        return check_sampler_options(info.data["sampler"] or card.defaults.sampler, value)

    return Annotated[dict[str, ClientOptionValue] | None, AfterValidator(check)]


def check_sampler_options(sampler: str, options: Mapping[str, Any]) -> dict[str, OptionValue]:
    """Return `options` with the types that `sampler` expects.

    Raises:
        ValidationError: one entry for every unknown name and every wrong value, located by name.
    """
    known = SAMPLER_CATALOG[sampler].options
    checked: dict[str, OptionValue] = {}
    errors: list[InitErrorDetails] = []
    for name, value in options.items():
        if name not in known:
            errors.append(_unknown_option(sampler, known, name, value))
            continue
        try:
            checked[name] = _option_adapter(known[name]).validate_python(
                whole_number(value), strict=True
            )
        except ValidationError as exc:
            errors += [
                InitErrorDetails(
                    type=error["type"],
                    loc=(name,),
                    input=error["input"],
                    ctx=error.get("ctx", {}),
                )
                for error in exc.errors()
            ]
    if errors:
        raise ValidationError.from_exception_data("sampler_options", errors)
    return checked


@cache
def _option_adapter(option: OptionInfo) -> TypeAdapter[Any]:
    if option.choices:
        return TypeAdapter(_one_of(option.choices))
    if isinstance(option.default, bool):
        return TypeAdapter(bool)
    low, high = option.minimum, option.maximum
    if isinstance(option.default, int):
        return TypeAdapter(Annotated[int, Field(ge=low, le=high)])
    return TypeAdapter(Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)])


def _unknown_option(
    sampler: str, known: Collection[str], name: str, value: Any
) -> InitErrorDetails:
    message = f"{sampler} has no options"
    if known:
        message = f"{sampler} has no such option; it has {', '.join(known)}"
    context = {"message": message, "expected": _quoted(known)}
    return InitErrorDetails(
        type=PydanticCustomError("unknown_option", "{message}", context), loc=(name,), input=value
    )


def _quoted(names: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _quality_type(card: Card) -> Any:
    """`exact` or a quality of the card, which offers it for some of its samplers."""

    def check(name: Quality, info: ValidationInfo) -> Quality:
        if name == "exact" or "sampler" not in info.data:
            return name
        sampler, fitting = info.data["sampler"] or card.defaults.sampler, card.qualities[name]
        if sampler not in fitting.samplers:
            message = "{name} is offered with {samplers} only; with {sampler} use fewer steps"
            names = {"name": name, "samplers": ", ".join(fitting.samplers), "sampler": sampler}
            raise PydanticCustomError("quality_sampler", message, {**names, "expected": "'exact'"})
        return name

    return Annotated[_one_of(("exact", *card.qualities)), AfterValidator(check)]


def _loras_type(
    names: Callable[[], Collection[str]], refused: Callable[[], Mapping[str, str]]
) -> Any:
    """The type of `loras`; `names` returns the LoRAs that exist at the moment."""

    def check(name: str) -> str:
        known = names()
        has_folder = "/" in normalized_lora_name(name)
        found = match_lora(name, known) if has_folder else find_lora(name, known)
        if found is not None:
            return found
        allowed = list(known)[:_MAX_NAMES_SHOWN]
        why = why_no_lora(name, known, refused())
        if why is None:
            message = "there is no LoRA of this name; GET /capabilities lists them"
            raise PydanticCustomError("lora_unknown", message, {"allowed": allowed})
        is_refused, reason = why
        if is_refused:
            raise PydanticCustomError("lora_refused", "{reason}", {"reason": reason})
        context = {"reason": reason, "allowed": allowed}
        raise PydanticCustomError("lora_unknown", "{reason}", context)

    choice = create_model(
        "LoraChoice",
        __base__=LoraChoice,
        __module__=__name__,
        name=(Annotated[str, AfterValidator(check)], LoraChoice.model_fields["name"]),
    )
    return Annotated[list[choice], AfterValidator(check_unique_loras)]


def _hires_type(card: Card) -> Any:
    def check(hires: Hires | None, info: ValidationInfo) -> Hires | None:
        resolution = info.data.get("resolution", "")
        # Without a resolution the input picture's size counts, which is not known yet.
        has_size_of_picture = resolution is None and info.data.get("init_image", "") is not None
        if hires is not None and resolution != "" and not has_size_of_picture:
            size = parse_resolution(resolution or card.defaults.resolution, card)
            check_hires(hires, *size, card.limits)
        return hires

    steps = Field(
        default=None,
        ge=1,
        le=card.limits.max_steps,
        description=field_description("steps", Hires),
    )
    hires = create_model("Hires", __base__=Hires, __module__=__name__, steps=(int | None, steps))
    return Annotated[hires | None, AfterValidator(check)]


def check_hires(hires: Hires, width: int, height: int, limits: Limits) -> None:
    """Refuse a second pass that exceeds the card's limits.

    Raises:
        ValidationError: at the field `scale`, with the largest possible scale.
    """
    problem = limits.size_problem(*enlarged_size(width, height, hires.scale, limits))
    if problem is None:
        return
    message = f"{width}x{height} times {hires.scale:g}: {problem}"
    error = PydanticCustomError(
        "hires_size",
        "{message}; at most {le} is possible",
        {"message": message, "le": largest_scale(width, height, limits)},
    )
    raise ValidationError.from_exception_data(
        "Hires", [InitErrorDetails(type=error, loc=("scale",), input=hires.scale)]
    )
