"""Converts options of `kirazuri generate` to fields of the request."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.client.errors import WrongUsage

_SHOWN_CHARS = 60
"""Of a wrong value in a message; a pasted image has millions."""

_STORED_NAME = re.compile(r"[0-9a-f]{40}\.[a-z]{3,4}")


def lora_field(text: str) -> dict[str, Any]:
    """An entry of `loras` from NAME or NAME:WEIGHT.

    Raises:
        WrongUsage: the weight is not a number.
    """
    name, colon, weight = text.partition(":")
    try:
        return {"name": name, "weight": float(weight)} if colon else {"name": name}
    except ValueError as exc:
        raise WrongUsage(f"--lora {text}: {weight!r} is not a weight; write NAME:0.8") from exc


def sampler_options_field(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """`sampler_options` from NAME=VALUE pairs; a value that is not JSON is a string.

    Raises:
        WrongUsage: a pair has no "=".
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator:
            raise WrongUsage(f"--sampler-option {pair}: must be NAME=VALUE")
        options[name] = _json_or_text(value)
    return options or None


def _json_or_text(value: str) -> Any:
    """JSON has no infinity and no NaN; these stay strings, which the service rejects."""
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return value
    return parsed if not isinstance(parsed, float) or math.isfinite(parsed) else value


def image_field(option: str, value: str) -> str:
    """A file as base64; the name or URL of an image of the service unchanged.

    Raises:
        WrongUsage: the value is neither; the message names `option`.
    """
    file = Path(value)
    shown = value if len(value) <= _SHOWN_CHARS else f"{value[:_SHOWN_CHARS]}…"
    try:
        if file.is_file():
            return base64.b64encode(file.read_bytes()).decode("ascii")
    except OSError as exc:
        raise WrongUsage(f"{option} {shown}: {exc.strerror}") from exc
    if "/images/" in value or _STORED_NAME.fullmatch(value):
        return value
    raise WrongUsage(f"{option} {shown}: no such file, and not an image of the service")


def hires_field(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """`hires` from its options by name; options that are None are left out.

    Raises:
        WrongUsage: options are given without a scale.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if given and "scale" not in given:
        raise WrongUsage(f"--hires-{next(iter(given))}: give --hires-scale too")
    return given or None


def require_json(body: Mapping[str, Any]) -> None:
    """Refuse what JSON cannot say: infinity and NaN, and text that was not UTF-8.

    Raises:
        WrongUsage: a field has such a value; the message names it.
    """
    for name, value in body.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as exc:
            raise WrongUsage(f"{name}: it is not UTF-8 text") from exc
        except ValueError as exc:
            raise WrongUsage(f"{name}: nan and infinity are not allowed") from exc
