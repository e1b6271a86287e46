"""Defines the exceptions of the model package, and bounds how many errors a validation finds."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

MAX_FIELD_ERRORS: Final = 100
"""Errors that the validation of one body describes; describing one takes microseconds."""

T = TypeVar("T")


class ModelError(Exception):
    """Base class of the exceptions of the model package."""


class CardError(ModelError):
    """A card is missing or invalid."""


class CheckpointError(ModelError):
    """A weight file is missing, incomplete, of an unknown layout or unsafe to read."""


class PromptError(ModelError):
    """A prompt cannot be parsed; `limit` is the maximum weight or nesting that it exceeds."""

    def __init__(self, message: str, limit: float) -> None:
        super().__init__(message)
        self.limit = limit


class InputMissing(ModelError):
    """An input picture of the request is missing or cannot be read."""


class NonFiniteLatents(ModelError):
    """Latents or pixels contain NaN or infinity."""


class DeviceMissing(ModelError):
    """The machine, or this build of torch, has no such device."""


class DeviceLost(ModelError):
    """The device no longer works; the process that uses it must end."""


class LoraError(ModelError):
    """A LoRA cannot be used. The message names it."""


class LoraMissing(LoraError):
    """The LoRA folder has no file of this name."""


class LoraChanged(LoraError):
    """The LoRA's file has changed since the request was accepted."""


class LoraUnusable(LoraError):
    """A LoRA's file cannot be read or does not fit this checkpoint."""


class PolicyError(ModelError):
    """The policy's rules cannot be read or contradict each other. The message says where."""


class TagListError(ModelError):
    """The list of tags cannot be read. The message says which row is wrong."""


class PolicyBlocked(ModelError):
    """The policy refuses a request. Carries the rule and its reason, never words of the prompt."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"refused by the rule {rule}: {reason}")
        self.rule = rule
        self.reason = reason


def validate_bounded(
    data: Any, handler: Callable[[Any], T], fields: Collection[str] | None = None
) -> T:
    """Validate with a pydantic handler; finds at most MAX_FIELD_ERRORS errors.

    `fields` are the names that an object may have, or None if all are allowed. `total` in the
    context of the first error is the number of errors if some are left out.

    Raises:
        ValidationError: the first unknown names, if there are more than MAX_FIELD_ERRORS.
        PydanticCustomError: there are more errors of other kinds; they are only counted.
    """
    if fields is not None and isinstance(data, Mapping):
        _check_names(data, fields)
    try:
        return handler(data)
    except ValidationError as exc:
        total = exc.error_count()
        if total <= MAX_FIELD_ERRORS:
            raise
    message = "{total} values are wrong; send fewer of them to see what is wrong with each"
    raise PydanticCustomError("too_many_errors", message, {"total": total})


def _check_names(data: Mapping[Any, Any], fields: Collection[str]) -> None:
    unknown = [name for name in data if name not in fields]
    if len(unknown) > MAX_FIELD_ERRORS:
        context = {"total": len(unknown)}
        error = PydanticCustomError("unknown_field", "unknown field", context)
        details = [
            InitErrorDetails(type=error, loc=(_encodable(name),), input=data[name])
            for name in unknown[:MAX_FIELD_ERRORS]
        ]
        raise ValidationError.from_exception_data("body", details)


def _encodable(name: object) -> str:
    return str(name).encode("utf-8", "replace").decode()
