"""Defines the request that is read from a picture file, the result of all recipe readers.

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
        self.notes.append(f"{one_line(what)}: {why}")

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

    def add_lora(self, name: str, weight: float) -> None:
        """Add a LoRA; the weights of a repeated one are summed."""
        loras = self.fields.setdefault("loras", [])
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
            self.add_note(f"schedule {value}", "unknown; the checkpoint's default is used")
        else:
            self.fields["scheduler"] = schedule


def one_line(text: str) -> str:
    """A value from a file as one line of limited length, for a message."""
    plain = "".join(char if char.isprintable() else "?" for char in text[: _MAX_SHOWN + 1])
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[:_MAX_SHOWN]}…"


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
    """The request of a document of this service, for exactly its picture."""
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
