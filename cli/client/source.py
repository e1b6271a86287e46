"""Reads a request from an image file and removes what the service does not offer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.client.errors import ClientError
from model.recipes.imported import ImportedRequest
from model.request import find_alias, find_lora, why_no_lora
from worker.images.metadata import UnreadableFile, find_recipe, read_metadata


def read_source(path: Path) -> ImportedRequest:
    """The request in an image file: from our recipe, or the text of another program.

    Raises:
        ClientError: the file cannot be read or contains no request.
    """
    try:
        found = find_recipe(read_metadata(path))
    except UnreadableFile as exc:
        raise ClientError(str(exc)) from exc
    except ValueError as exc:
        raise ClientError(f"{path}: {exc}") from exc
    if found is None:
        raise ClientError(f"{path} contains no recipe")
    return found.imported


def keep_offered(imported: ImportedRequest, capabilities: Mapping[str, Any]) -> ImportedRequest:
    """Remove what the service does not offer; notes on each removal and on another model.

    `capabilities` is the response of GET /capabilities.
    """
    if imported.fields.get("quality") == "exact":  # the default, unknown to earlier releases
        del imported.fields["quality"]
    for name, key in (
        ("sampler", "samplers"), ("scheduler", "schedulers"), ("quality", "qualities")
    ):  # fmt: skip
        offered = [choice["name"] for choice in capabilities.get(key, ())]
        value = imported.fields.get(name)
        if value is not None and value not in offered:
            del imported.fields[name]
            imported.add_note(f"{name} {value}", "not offered here; using the checkpoint's default")
            if name == "sampler" and (options := imported.fields.pop("sampler_options", None)):
                imported.add_note(f"sampler options {options}", "they belong to that sampler")
    _fit_loras(imported, capabilities)
    _compare_models(imported, capabilities)
    return imported


def _fit_loras(imported: ImportedRequest, capabilities: Mapping[str, Any]) -> None:
    """Use the service's names of LoRAs, which include their folders; leave out unknown ones."""
    loras = imported.fields.pop("loras", [])
    if not isinstance(loras, list) or not all(
        isinstance(lora, dict) and isinstance(lora.get("name"), str) for lora in loras
    ):
        imported.add_note(f"LoRAs {loras}", "they cannot be read")
        return
    offered = {lora["name"]: lora["sha256"] for lora in capabilities["loras"]}
    aliases = {lora["name"]: lora["alias"] for lora in capabilities["loras"] if lora.get("alias")}
    refused = {lora["name"]: lora["reason"] for lora in capabilities.get("refused_loras", [])}
    fitted = []
    for lora in loras:
        name = find_lora(lora["name"], list(offered))
        why = why_no_lora(lora["name"], list(offered), refused) if name is None else None
        if name is None and why is None and (name := find_alias(lora["name"], aliases)):
            imported.add_note(f"LoRA {lora['name']}", f"{name} is used, which was trained as this")
        if name is None:
            reason = why[1] if why else "the service has no LoRA of this name"
            imported.add_note(f"LoRA {lora['name']}", f"{reason}; left out")
            continue
        used, here = imported.lora_hashes.get(lora["name"]), offered[name]
        if used and here and used != here:
            imported.add_note(
                f"LoRA {name}", f"another file was used ({used[:10]}, not {here[:10]})"
            )
        fitted.append({**lora, "name": name})
    if fitted:
        imported.fields["loras"] = fitted


def _compare_models(imported: ImportedRequest, capabilities: Mapping[str, Any]) -> None:
    recipes = [worker["recipe"] for worker in capabilities["workers"] if worker.get("recipe")]
    here = {recipe["checkpoint"] for recipe in recipes}
    name, digits = imported.model or "a model without a name", imported.checkpoint.lower()
    if digits and any(checkpoint.startswith(digits) for checkpoint in here):
        return
    if not here:
        imported.add_note(f"made with {name}", "no worker is up to compare its checkpoint with")
    elif digits:
        shown = ", ".join(sorted(checkpoint[:10] for checkpoint in here))
        imported.add_note(
            f"made with {name} ({digits[:10]})",
            f"this service has another checkpoint, {capabilities['name']} ({shown})",
        )
    elif imported.model:
        imported.add_note(f"made with {name}", f"this service has {capabilities['name']}")
