"""What a picture's file asks for, in the words of a generation request.

The common result of all readers of recipes. What they cannot carry over is a note, never lost.
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
"""Of these, what a client says; the rest of a resolved request follows from it."""


@dataclass(slots=True)
class ImportedRequest:
    """A request's `fields`, and `notes` on what is different or missing, one sentence each.

    `lora_hashes` has the SHA-256 of LoRAs by name, where the file tells them whole.
    `checkpoint` is the SHA-256 of the transformer's file or its first digits, `model` the name
    that the file gives it; both may be empty. `is_own` tells a file of this service.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lora_hashes: dict[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    model: str = ""
    is_own: bool = False

    def note(self, what: str, why: str) -> None:
        """Say that something of the file is not carried over."""
        self.notes.append(f"{one_line(what)}: {why}")

    def set_number(
        self, name: str, value: Any, *, source: str, kind: type[int] | type[float]
    ) -> None:
        """Take a number over, or note what it is instead."""
        number = read_number(value, kind)
        if number is None:
            self.note(f"{source} {value}", "this is no number of its kind")
        elif name == "seed" and not 0 <= number <= MAX_SEED:
            self.note(f"{source} {value}", f"seeds are 0 to {MAX_SEED} here; another one is drawn")
        else:
            self.fields[name] = number

    def add_lora(self, name: str, weight: float) -> None:
        """Take a LoRA over; one that is there already counts with both weights."""
        loras = self.fields.setdefault("loras", [])
        for lora in loras:
            if lora["name"] == name:
                lora["weight"] += weight
                return
        loras.append({"name": name, "weight": weight})

    def set_sampler(self, value: str) -> None:
        """Take a sampler over by the name that another program gives it."""
        found = find_sampler(value)
        if found is None:
            self.note(f"sampler {value}", "unknown here; the checkpoint's default is taken")
            return
        self.fields["sampler"] = found.sampler
        if found.options:
            self.fields["sampler_options"] = dict(found.options)
        if found.schedule is not None:
            self.fields["scheduler"] = found.schedule

    def set_schedule(self, value: str) -> None:
        """Take a schedule over by the name that another program gives it."""
        schedule = find_schedule(value)
        if schedule is None:
            self.note(f"schedule {value}", "unknown here; the checkpoint's default is taken")
        else:
            self.fields["scheduler"] = schedule


def one_line(text: str) -> str:
    """A value of a file, on one line and cut, as it may stand in a message."""
    plain = "".join(char if char.isprintable() else "?" for char in text[: _MAX_SHOWN + 1])
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[:_MAX_SHOWN]}…"


def read_number(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """The number in a JSON value or a short text; None where it is none, or no whole one."""
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
    """What a document of this service asks for: exactly its picture."""
    reading = ImportedRequest(
        checkpoint=document.recipe.checkpoint, model=document.recipe.card, is_own=True
    )
    request = dict(document.request)
    width, height = request.pop("width", None), request.pop("height", None)
    if width is not None and height is not None:
        reading.fields["resolution"] = f"{width}x{height}"
    if isinstance(loras := request.get("loras"), list):
        reading.lora_hashes = {
            str(lora.get("name")): str(lora.get("sha256"))
            for lora in loras
            if isinstance(lora, dict) and lora.get("sha256")
        }
    for name, value in request.items():
        if name not in GenerationRequest.model_fields:
            reading.note(f"{name} {value}", "this release does not know it")
        elif value is not None:
            reading.fields[name] = _open(name, value)
    return reading


def _open(name: str, value: Any) -> Any:
    """The part of a resolved value that a client says."""
    wanted = _NESTED.get(name)
    if wanted is None:
        return value
    if isinstance(value, list):
        return [_open(name, entry) for entry in value]
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if key in wanted}
    return value
