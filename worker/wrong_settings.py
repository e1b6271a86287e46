"""Reads the settings, and says in one line what is wrong with them, without any secret."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from model.errors import ModelError
from worker.settings import Settings

WRONG_SETTINGS = 2
"""Exit code of API and workers."""

_HARMLESS_CHARS = 16
"""A secret is longer than a wrong number or choice."""


class WrongSettings(ValueError):
    """A setting is wrong; the message names its variable and what is wrong, but no secret."""


def read_settings(**options: Any) -> Settings:
    """The settings; `options` override variables and files.

    Raises:
        WrongSettings: names every wrong value, or the file that cannot be read.
    """
    try:
        return Settings(**options)
    except ValidationError as exc:
        raise WrongSettings("; ".join(map(_what_is_wrong, exc.errors()))) from None
    except (OSError, UnicodeDecodeError) as exc:
        file = "the file .env in this folder"
        if Settings.model_config.get("secrets_dir"):
            file += ", or one in /run/kirazuri,"
        reason = getattr(exc, "strerror", None) or exc
        raise WrongSettings(f"{file} cannot be read: {reason}") from None


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Let errors of what a setting names begin with its variable.

    Raises:
        WrongSettings: instead of ModelError and ValueError.
    """
    try:
        yield
    except (ModelError, ValueError) as exc:
        raise WrongSettings(f"KIRAZURI_{setting.upper()}: {exc}") from exc


def limits_of(field: FieldInfo) -> str:
    """The allowed choices, or the smallest and the largest allowed value; "" without limits."""
    choices = [f"`{choice}`" for choice in get_args(field.annotation) if isinstance(choice, str)]
    bounds = [
        f"{words} {getattr(bound, name)}"
        for name, words in (("ge", "at least"), ("le", "at most"))
        for bound in field.metadata
        if hasattr(bound, name)
    ]
    return ", ".join(choices or bounds)


def _what_is_wrong(error: ErrorDetails) -> str:
    """The variable, its value if that is a number or a word, and what it must be.

    A text is not shown: it may be a password, or a URL that holds one.
    """
    reason = error.get("ctx", {}).get("error")
    if not error["loc"]:
        return str(reason)
    name = str(error["loc"][0])
    variable, field = f"KIRAZURI_{name.upper()}", Settings.model_fields[name]
    if reason is not None:
        return f"{variable} {reason}"
    must_be = _must_be(field)
    value = str(error["input"])
    is_shown = must_be and len(value) <= _HARMLESS_CHARS
    shown = f" is {value!r}, but it" if is_shown else ""
    return f"{variable}{shown} must be {must_be or 'a text'}"


def _must_be(field: FieldInfo) -> str:
    """The kind and the limits of a number, or the choices; "" for a text."""
    types = (field.annotation, *get_args(field.annotation))
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    kind = next((text for kind, text in kinds.items() if kind in types), "")
    limits = limits_of(field).replace("`", "")
    return ", ".join(filter(None, (kind or (limits and "one of"), limits))).replace("of,", "of")
