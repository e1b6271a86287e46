"""Finds variables that look like settings and are none, such as KIRAZURI_MAX_QEUE."""

import difflib
import os
import re
from collections.abc import Iterable

from pydantic_settings import DotEnvSettingsSource

from worker.settings import Settings

_OF_CONTAINERS = re.compile(
    # docker-compose.yml, and what Kubernetes adds for a service that is named kirazuri
    r"KIRAZURI_(\w+_PUBLISH|PUBLISH|\w+_MEMORY|REDIS_MAXMEMORY|METRICS_KEY_FILE|CHECKPOINT|LORAS"
    r"|TEST_\w+|(\w+_)?SERVICE_(HOST|PORT)(_\w+)?|(\w+_)?PORT(_\d+_(TCP|UDP)(_\w+)?)?)"
)
_SAME_WORD = 0.9
"""Likeness of whole names from which another prefix, such as KIRAZURY_, is a misspelt one."""


def warnings_about_names(names: Iterable[str] | None = None) -> list[str]:
    """A sentence for each variable that is no setting, with the nearest name; never its value.

    Reads the names of the environment and of `.env` unless they are given.
    """
    known = [f"KIRAZURI_{name.upper()}" for name in Settings.model_fields]
    found = set(_names_here() if names is None else names)
    return [
        sentence
        for name in sorted(found)
        if name.upper() not in known and (sentence := _sentence(name, known))
    ]


def _names_here() -> list[str]:
    file = DotEnvSettingsSource(Settings).env_vars
    return [*os.environ, *map(str.upper, file)]  # noqa: TID251


def _sentence(name: str, known: list[str]) -> str | None:
    is_ours = name.upper().startswith("KIRAZURI_")
    if is_ours and _OF_CONTAINERS.fullmatch(name.upper()):
        return None
    advice = f"{name} is not a setting and has no effect"
    if is_ours:
        endings = [setting.removeprefix("KIRAZURI_") for setting in known]
        near = difflib.get_close_matches(name[len("KIRAZURI_") :].upper(), endings, 1)
        return f"{advice}; is KIRAZURI_{near[0]} meant?" if near else advice
    near = difflib.get_close_matches(name.upper(), known, 1, _SAME_WORD)
    return f"{advice}; is {near[0]} meant?" if near else None
