"""Reads what another release or program may have written: what is not understood is left out."""

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Part = TypeVar("Part", bound=BaseModel)

log = logging.getLogger(__name__)

_told: set[str] = set()
"""The shared numbers that are known to be unreadable."""


def shared_number(name: str, text: str | None) -> float:
    """A finite number that all jobs share; 0 if it is missing, or is no number, which is logged.

    It is logged again only after it was readable; the next job that counts there replaces it.
    """
    reader = TolerantReader({name: text or ""})
    number = reader.number(name) or 0.0
    if not reader.left_out:
        _told.discard(name)
    elif name not in _told:
        _told.add(name)
        log.warning("another program changed %s in Redis: it is no number, and counts as 0", name)
    return number


class TolerantReader:
    """The fields of a record. `left_out` names what could not be read.

    Every method returns None, or no entries, for a field that is missing or cannot be read.
    """

    def __init__(self, record: Mapping[str, str]) -> None:
        self._record = record
        self.left_out: list[str] = []

    def number(self, name: str) -> float | None:
        """A field as a finite number."""
        text = self._record.get(name)
        with suppress(ValueError):
            number = float(text) if text else None
            if number is None or math.isfinite(number):
                return number
        self.left_out.append(name)
        return None

    def time(self, name: str) -> datetime | None:
        """A field as a time."""
        seconds = self.number(name)
        try:
            return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            self.left_out.append(name)
            return None

    def strings(self, name: str) -> list[str] | None:
        """A field as a list of texts."""
        value = self._json(name, list)
        return None if value is None else [str(entry) for entry in value]

    def part(
        self, name: str, model: type[Part], *, placeholders: Mapping[str, Any] | None = None
    ) -> Part | None:
        """A field as a model; entries of it that cannot be read have their default.

        If an entry has no default and no placeholder, the whole field cannot be read. Entries that
        this release does not know are ignored.
        """
        entries = self._json(name, dict)
        if entries is None and placeholders is None:
            return None
        return self._model(name, model, entries or {}, placeholders or {})

    def parts(self, name: str, model: type[Part]) -> list[Part]:
        """A field as a list of models, without those that cannot be read."""
        found = (
            self._model(f"{name}.{index}", model, entry if isinstance(entry, dict) else {}, {})
            for index, entry in enumerate(self._json(name, list) or [])
        )
        return [part for part in found if part is not None]

    def _json(self, name: str, kind: type) -> Any:
        text = self._record.get(name)
        try:
            value = json.loads(text) if text else None
        except (ValueError, RecursionError):
            value = text
        if value is None or isinstance(value, kind):
            return value
        self.left_out.append(name)
        return None

    def _model(
        self, name: str, model: type[Part], entries: dict[str, Any], placeholders: Mapping[str, Any]
    ) -> Part | None:
        known = {key: value for key, value in entries.items() if key in model.model_fields}
        try:
            return model.model_validate(known)
        except ValidationError as exc:
            wrong = {str(error["loc"][0]) for error in exc.errors() if error["loc"]}
        self.left_out += [f"{name}.{key}" for key in sorted(wrong)]
        readable = {key: value for key, value in known.items() if key not in wrong}
        try:
            return model.model_validate({**placeholders, **readable})
        except ValidationError:
            return None
