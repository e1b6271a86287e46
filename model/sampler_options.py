"""Checks a request's sampler and its options against the tables of names. Free of torch."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from model.sampler_catalog import REFUSED_SAMPLERS, SAMPLER_CATALOG, OptionInfo, OptionValue


def refuse_sampler(name: Any, offered: Sequence[str]) -> Any:
    """Pass a name on unless it is a known sampler that is not offered, for a known reason."""
    if isinstance(name, str) and name in REFUSED_SAMPLERS and name not in offered:
        raise PydanticCustomError(
            "sampler_refused",
            "{name} is not offered: {reason}",
            {"name": name, "reason": REFUSED_SAMPLERS[name], "expected": _quoted(offered)},
        )
    return name


def check_sampler_options(sampler: str, options: Mapping[str, Any]) -> dict[str, OptionValue]:
    """Give `options` as `sampler` takes them: numbers where it wants numbers.

    Raises:
        ValidationError: one entry for every unknown name and every wrong value, located by name.
    """
    known = SAMPLER_CATALOG[sampler].options
    checked: dict[str, OptionValue] = {}
    errors: list[InitErrorDetails] = []
    for name, value in options.items():
        if name not in known:
            errors.append(_unknown(sampler, name, value))
            continue
        try:
            checked[name] = _adapter(known[name]).validate_python(value, strict=True)
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
def _adapter(option: OptionInfo) -> TypeAdapter[Any]:
    if option.choices:
        choices: Any = Literal[option.choices]
        return TypeAdapter(choices)
    if isinstance(option.default, bool):
        return TypeAdapter(bool)
    low, high = option.minimum, option.maximum
    if isinstance(option.default, int):
        return TypeAdapter(Annotated[int, Field(ge=low, le=high)])
    return TypeAdapter(Annotated[float, Field(ge=low, le=high, allow_inf_nan=False)])


def _unknown(sampler: str, name: str, value: Any) -> InitErrorDetails:
    known = SAMPLER_CATALOG[sampler].options
    told = f"{sampler} has no such option; it has {', '.join(known)}"
    if not known:
        told = f"{sampler} has no options"
    return InitErrorDetails(
        type=PydanticCustomError(
            "unknown_option", "{told}", {"told": told, "expected": _quoted(known)}
        ),
        loc=(name,),
        input=value,
    )


def _quoted(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
