"""A picture as the source of a request: what its file tells, fitted to what a service offers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.recipes.aliases import find_lora
from model.recipes.imported import ImportedRequest
from worker.images.metadata import UnreadableFile, read_metadata, read_recipe


class SourceError(Exception):
    """The file is no picture, or does not tell how it was made."""


def read_source(path: Path) -> ImportedRequest:
    """What the picture's file asks for: our own document, else an infotext, else a graph.

    Raises:
        SourceError: it cannot be read, or holds nothing of the kind.
    """
    try:
        found = read_recipe(read_metadata(path))
    except UnreadableFile as exc:
        raise SourceError(str(exc)) from exc
    except ValueError as exc:
        raise SourceError(f"{path}: {exc}") from exc
    if found is None:
        raise SourceError(f"{path} does not tell how it was made: no recipe, infotext or workflow")
    return found.reading


def fit(reading: ImportedRequest, capabilities: Mapping[str, Any]) -> ImportedRequest:
    """The reading without what the service does not offer, with a note on each, and on its model.

    `capabilities` is the answer of GET /capabilities.
    """
    for name, key in (("sampler", "samplers"), ("scheduler", "schedulers")):
        offered = [choice["name"] for choice in capabilities[key]]
        value = reading.fields.get(name)
        if value is not None and value not in offered:
            del reading.fields[name]
            reading.note(f"{name} {value}", "not offered here; the checkpoint's default is taken")
            if name == "sampler" and (options := reading.fields.pop("sampler_options", None)):
                reading.note(f"sampler options {options}", "they belong to that sampler")
    _fit_loras(reading, capabilities)
    _compare_models(reading, capabilities)
    return reading


def _fit_loras(reading: ImportedRequest, capabilities: Mapping[str, Any]) -> None:
    """Name LoRAs as the service does, which also knows their folders; leave out unknown ones."""
    loras = reading.fields.pop("loras", [])
    if not isinstance(loras, list) or not all(
        isinstance(lora, dict) and isinstance(lora.get("name"), str) for lora in loras
    ):
        reading.note(f"LoRAs {loras}", "they cannot be read")
        return
    offered = {lora["name"]: lora["sha256"] for lora in capabilities["loras"]}
    fitted = []
    for lora in loras:
        name = find_lora(lora["name"], list(offered))
        if name is None:
            reading.note(f"LoRA {lora['name']}", "the service has none of this name; left out")
            continue
        known, here = reading.lora_hashes.get(lora["name"]), offered[name]
        if known and here and known != here:
            reading.note(f"LoRA {name}", f"another file was used ({known[:10]}, not {here[:10]})")
        fitted.append({**lora, "name": name})
    if fitted:
        reading.fields["loras"] = fitted


def _compare_models(reading: ImportedRequest, capabilities: Mapping[str, Any]) -> None:
    recipes = [worker["recipe"] for worker in capabilities["workers"] if worker.get("recipe")]
    here = {recipe["checkpoint"] for recipe in recipes}
    name, digits = reading.model or "a model without a name", reading.checkpoint.lower()
    if digits and any(known.startswith(digits) for known in here):
        return
    if not here:
        reading.note(f"made with {name}", "no worker is up to compare its checkpoint with")
    elif digits:
        shown = ", ".join(sorted(known[:10] for known in here))
        reading.note(
            f"made with {name} ({digits[:10]})",
            f"this service has another checkpoint, {capabilities['name']} ({shown})",
        )
    elif reading.model:
        reading.note(f"made with {name}", f"this service has {capabilities['name']}")
