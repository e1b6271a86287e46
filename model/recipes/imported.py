"""Defines the request that is read from an image file, the result of all recipe readers.

Readers add a note about everything that they cannot import.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from model.recipes.aliases import find_sampler, find_schedule
from model.recipes.recipe import RecipeDocument
from model.request import MAX_SEED, GenerationRequest

_MAX_SHOWN = 100
_MAX_SIDE = 100_000
_MAX_LORAS = 1000
_MARKS = "\ufeff\ufffe\0"
_MAX_NOTES = 500

_SETTINGS = ("seed", "steps", "cfg_scale", "sampler", "scheduler", "resolution", "negative_prompt")
"""Fields that change the image; a reader imports or notes each of them."""

_NESTED = {"hires": ("scale", "steps", "strength", "upscaler"), "loras": ("name", "weight")}
"""The parts of nested fields that a client sets; a resolved request has more."""


@dataclass(slots=True)
class ImportedRequest:
    """The `fields` of a request, and `notes` on everything that is different or missing.

    `lora_hashes` has the SHA-256 of LoRAs by name if the file has complete hashes. `checkpoint` is
    the SHA-256 of the transformer's file or its first digits, `model` the name in the file; both
    may be empty. `is_own` is true for a file of this service.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lora_hashes: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    model: str = ""
    is_own: bool = False

    def add_note(self, what: str, why: str) -> None:
        """Note that something in the file is not imported as it is."""
        if len(self.notes) < _MAX_NOTES:
            self.notes.append(f"{one_line(what)}: {why}")
        elif len(self.notes) == _MAX_NOTES:
            self.notes.append("more of the file is not imported; further notes are left out")

    def set_number(
        self, name: str, value: Any, *, source: str, kind: type[int] | type[float]
    ) -> None:
        """Set a field to a number, or note that the value is invalid."""
        number = read_number(value, kind)
        if number is None:
            self.add_note(f"{source} {value}", "not a valid number")
        elif name == "seed" and not 0 <= number <= MAX_SEED:
            self.add_note(
                f"{source} {value}", f"seeds must be 0 to {MAX_SEED}; a new seed is drawn"
            )
        else:
            self.fields[name] = number

    def set_size(self, width: Any, height: Any) -> None:
        """Set the resolution, or note that a side is invalid."""
        sides = [read_number(side, int) for side in (width, height)]
        if all(side is not None and 0 < side < _MAX_SIDE for side in sides):
            self.fields["resolution"] = f"{sides[0]}x{sides[1]}"
        elif width is not None or height is not None:
            self.add_note(f"resolution {width}x{height}", "not a size; the default is used")

    def note_missing(self) -> None:
        """Note every setting that is neither imported nor in a note."""
        for name in _SETTINGS:
            if name not in self.fields and not any(note.startswith(name) for note in self.notes):
                self.add_note(name, "not in the file; the default is used")

    def add_lora(self, name: str, weight: float) -> None:
        """Add a LoRA; the weights of a repeated one are summed.

        Those after the first thousand are dropped: no request may have as many.
        """
        loras = self.fields.setdefault("loras", [])
        if len(loras) >= _MAX_LORAS:
            return
        for lora in loras:
            if lora["name"] == name:
                lora["weight"] += weight
                return
        loras.append({"name": name, "weight": weight})

    def set_sampler(self, value: str) -> None:
        """Set the sampler by its name in another program."""
        found = find_sampler(value)
        if found is None:
            self.add_note(f"sampler {value}", "unknown; the checkpoint's default is used")
            return
        self.fields |= found.fields

    def set_schedule(self, value: str) -> None:
        """Set the schedule by its name in another program."""
        schedule = find_schedule(value)
        if schedule is None:
            self.add_note(f"scheduler {value}", "unknown; the checkpoint's default is used")
        else:
            self.fields["scheduler"] = schedule


def plain_text(text: str) -> str:
    """A text from a file with plain line ends, without byte order marks and null characters."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    for mark in _MARKS:  # `str.translate` takes a hundred times as long
        plain = plain.replace(mark, "")
    return plain


def one_line(text: str, limit: int = _MAX_SHOWN) -> str:
    """A value from a file as one line of limited length, for a message."""
    plain = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


def read_number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """The number in a JSON value or a short text; None if it is not a number of this kind."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return None
    try:
        if kind is int and not isinstance(value, float):
            with suppress(ValueError):
                return int(value)
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        return None
    return kind(number)


def import_document(document: RecipeDocument) -> ImportedRequest:
    """The request of a document of this service, for exactly its image."""
    imported = ImportedRequest(
        checkpoint=document.recipe.checkpoint, model=document.recipe.card, is_own=True
    )
    request = dict(document.request)
    width, height = request.pop("width", None), request.pop("height", None)
    if width is not None and height is not None:
        imported.fields["resolution"] = f"{width}x{height}"
    if isinstance(loras := request.get("loras"), list):
        imported.lora_hashes = {
            str(lora.get("name")): str(lora.get("sha256"))
            for lora in loras
            if isinstance(lora, dict) and lora.get("sha256")
        }
    for name, value in request.items():
        if name not in GenerationRequest.model_fields:
            imported.add_note(f"{name} {value}", "unknown to this release")
        elif value is not None:
            imported.fields[name] = _client_part(name, value)
    return imported


def _client_part(name: str, value: Any) -> Any:
    """The part of a resolved value that a client sets."""
    wanted = _NESTED.get(name)
    if wanted is None:
        return value
    if isinstance(value, list):
        return [_client_part(name, entry) for entry in value]
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if key in wanted}
    return value
