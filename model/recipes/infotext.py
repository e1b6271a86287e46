"""Writes and reads infotext, the `parameters` text of the A1111 web UI.

It has the prompt, a `Negative prompt:` line, and a line of `key: value` pairs.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from model.recipes.aliases import find_schedule
from model.recipes.imported import ImportedRequest, read_number
from model.recipes.infotext_syntax import (
    BYTE_ORDER_MARKS,
    NEGATIVE,
    SIZE,
    Infotext,
    break_markers,
    has_parameters,
    hidden_json,
    quoted,
    split_infotext,
    unclear_mark,
)
from model.recipes.json_text import load_json
from model.recipes.lora_tags import break_tags, extract_networks
from model.recipes.recipe import Recipe
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, UPSCALER_DISPLAY_NAMES

_MAX_SHOWN_PAIRS = 40
_TEMPLATE = re.compile(r"(?:negative )?template[:：]", re.IGNORECASE)

_IGNORED_KEYS = frozenset(
    {"version", "app", "batch size", "batch pos", "created date", "time taken"}
)
"""Keys that do not affect the image."""

LoraWeights = list[tuple[str, float]]


def write_infotext(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """Write the infotext of one image; `seed` is that of the image.

    LoRAs are in the prompt and the negative line is always present, as other programs expect.
    """
    pairs = {
        "Steps": request.steps,
        "Sampler": SAMPLER_CATALOG[request.sampler].display_name,
        "Schedule type": SCHEDULE_DISPLAY_NAMES[request.scheduler],
        "Sampler options": json.dumps(request.sampler_options) if request.sampler_options else "",
        "CFG scale": _exact(request.cfg_scale),
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        **_edits(request),
        "Model hash": recipe.checkpoint[:10],
        "Model": recipe.card,
        "Lora hashes": ", ".join(f"{lora.name}: {lora.sha256[:12]}" for lora in request.loras),
        "Version": recipe.service,
    }
    loras = [(lora.name, lora.weight) for lora in request.loras]
    return _compose(request.prompt, request.negative_prompt, loras, pairs)


def infotext_of(imported: ImportedRequest) -> str:
    """Write an imported request as an infotext, for programs that read nothing else."""
    fields = imported.fields
    sampler, schedule = fields.get("sampler", ""), fields.get("scheduler", "")
    pairs = {
        "Steps": fields.get("steps", ""),
        "Sampler": SAMPLER_CATALOG[sampler].display_name if sampler else "",
        "Schedule type": SCHEDULE_DISPLAY_NAMES[schedule] if schedule else "",
        "CFG scale": _exact(fields["cfg_scale"]) if "cfg_scale" in fields else "",
        "Seed": fields.get("seed", ""),
        "Size": fields.get("resolution", ""),
        "Model hash": imported.checkpoint[:10],
        "Model": imported.model,
    }
    loras = [(lora["name"], lora["weight"]) for lora in fields.get("loras", ())]
    prompt, negative = (fields.get(name, "") for name in ("prompt", "negative_prompt"))
    return _compose(prompt, negative, loras, pairs)


def _compose(prompt: str, negative: str, loras: LoraWeights, pairs: dict[str, Any]) -> str:
    """Write an infotext that gives these prompts and LoRAs when it is read.

    If a prompt looks like another part of an infotext, or has LoRA tags, such words are broken with
    a blank, and the texts are repeated as JSON among the parameters.
    """
    line = ", ".join(f"{key}: {quoted(str(value))}" for key, value in pairs.items() if value != "")
    tags = "".join(f" <lora:{name}:{_exact(weight)}>" for name, weight in loras)
    plain = f"{prompt}{tags}\n{NEGATIVE} {negative}\n{line}"
    has_tags = (prompt, negative) != (break_tags(prompt), break_tags(negative))
    is_clear = not (has_tags or has_parameters(prompt) or has_parameters(negative))
    if is_clear and _reads_as(plain, prompt, negative, loras):
        return plain
    exact = {"Exact prompt": prompt, "Exact negative prompt": negative, "Exact LoRAs": loras}
    line += "".join(f", {key}: {hidden_json(value)}" for key, value in exact.items())
    prompt, negative, tags = (
        break_markers(text) for text in (break_tags(prompt), break_tags(negative), tags)
    )
    return f"{prompt.lstrip(BYTE_ORDER_MARKS)}{tags}\n{NEGATIVE} {negative}\n{line}"


def _reads_as(text: str, prompt: str, negative: str, loras: LoraWeights) -> bool:
    try:
        fields = read_infotext(text).fields
    except ValueError:  # a prompt without parameters after it
        return False
    found = [(lora["name"], lora["weight"]) for lora in fields.get("loras", ())]
    return (fields["prompt"], fields["negative_prompt"], found) == (prompt, negative, loras)


def _exact(number: float) -> str:
    """A number with as many digits as it takes to read it again."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def prompt_with_loras(request: ResolvedRequest) -> str:
    """The prompt with the LoRAs in the syntax of the web UI."""
    return break_tags(request.prompt) + "".join(
        f" <lora:{lora.name}:{_exact(lora.weight)}>" for lora in request.loras
    )


def _edits(request: ResolvedRequest) -> dict[str, str | int]:
    """The input images and the second pass, under the keys of the web UI.

    `Denoising strength` belongs to the input image, or to the second pass if there is none.
    """
    pairs: dict[str, str | int] = {}
    hires = request.hires
    if request.init_image:
        pairs["Denoising strength"] = _exact(request.strength or 0)
        pairs["Init image"] = request.init_image
    elif hires:
        pairs["Denoising strength"] = _exact(hires.strength)
    if request.mask:
        pairs["Mask"] = request.mask
    if hires:
        pairs["Hires upscale"] = _exact(hires.scale)
        pairs["Hires steps"] = hires.steps
        pairs["Hires upscaler"] = UPSCALER_DISPLAY_NAMES[hires.upscaler]
        if request.init_image:
            pairs["Hires strength"] = _exact(hires.strength)
    return pairs


def read_infotext(text: str) -> ImportedRequest:
    """Read an infotext of this service or of another program. The prompt may be empty.

    Raises:
        ValueError: as `split_infotext`.
    """
    imported = ImportedRequest()
    parts = split_infotext(text)
    parts = parts._replace(pairs=_with_decimal_commas(parts.pairs))
    for line in parts.rest[:_MAX_SHOWN_PAIRS]:
        imported.add_note(line, "text after the parameters is left out")
    pairs = _unique_pairs(imported, parts)
    loose = [value for key, value in parts.pairs if not key]
    _import_prompts(imported, parts, pairs)
    _import_pairs(imported, pairs, loose)
    return imported


def _with_decimal_commas(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs, where a number of which a comma cut off the decimals is one text again."""
    joined: list[tuple[str, str]] = []
    for key, value in pairs:
        if not key and value.isdecimal() and joined and joined[-1][1].isdecimal():
            joined[-1] = (joined[-1][0], f"{joined[-1][1]},{value}")
        else:
            joined.append((key, value))
    return joined


def _unique_pairs(imported: ImportedRequest, parts: Infotext) -> dict[str, str]:
    """The pairs by lower-case key; notes keys with several values and leaves them out."""
    values: dict[str, list[str]] = {}
    for key, value in parts.pairs:
        if key:
            values.setdefault(key.lower(), []).append(value)
    for key, found in values.items():
        for value in found[:_MAX_SHOWN_PAIRS] if len(set(found)) > 1 else ():
            imported.add_note(f"{key}: {value}", "one of several values; none of them is used")
    return {key: found[0] for key, found in values.items() if len(set(found)) == 1}


def _import_prompts(imported: ImportedRequest, parts: Infotext, pairs: dict[str, str]) -> None:
    """Import prompts and LoRAs from their lines, or from the parameters that repeat them."""
    exact = [pairs.pop(key, None) for key in ("exact prompt", "exact negative prompt")]
    if all(text is not None for text in exact):
        imported.fields |= {"prompt": exact[0], "negative_prompt": exact[1]}
        _import_exact_loras(imported, pairs.pop("exact loras", ""))
    else:
        negative = _without_templates(imported, parts.negative_prompt)
        if mark := unclear_mark(negative):
            imported.add_note("negative_prompt", f"{mark!r} is taken as a part of it")
        # The web UI ignores networks in the negative prompt.
        imported.fields["prompt"] = extract_networks(imported, parts.prompt)
        imported.fields["negative_prompt"] = extract_networks(imported, negative, is_used=False)
    if pairs.get("version", "").startswith("Fooocus"):
        _import_fooocus_keys(imported, pairs)
    _note_other_loras(imported, pairs)


def _import_exact_loras(imported: ImportedRequest, text: str) -> None:
    try:
        for name, weight in load_json(text):
            imported.add_lora(str(name), float(weight))
    except (ValueError, TypeError):
        imported.add_note(f"loras {text}", "they cannot be read")


def _without_templates(imported: ImportedRequest, negative: str) -> str:
    """The negative prompt without template lines, which SD.Next and others write after it."""
    lines = negative.split("\n")
    for place, line in enumerate(lines):
        if _TEMPLATE.match(line):
            for template in lines[place:]:
                imported.add_note(template, "left out; the prompts are already filled in")
            return "\n".join(lines[:place]).strip()
    return negative


def _import_fooocus_keys(imported: ImportedRequest, pairs: dict[str, str]) -> None:
    """Import what Fooocus writes into parameters: the prompts before its styles, and LoRAs."""
    for key, name in (("raw prompt", "prompt"), ("raw negative prompt", "negative_prompt")):
        raw = pairs.pop(key, None)
        if raw is not None and raw != imported.fields[name]:
            imported.fields[name] = raw
            imported.add_note(name, "used as it was before Fooocus added its styles")
    for entry in filter(None, pairs.pop("lora weights", "").split(", ")):
        name, _, number = entry.rpartition(": ")
        weight = read_number(number, float)
        if name and weight is not None:
            imported.add_lora(name, weight)
        else:
            imported.add_note(f"LoRA {entry}", "left out because its weight is not a number")


def _note_other_loras(imported: ImportedRequest, pairs: dict[str, str]) -> None:
    """Note LoRAs that the text names by their hashes only, without weights."""
    names = [entry.rpartition(": ")[0] for entry in pairs.pop("lora hashes", "").split(", ")]
    with suppress(ValueError, AttributeError):
        hashes = load_json(pairs.pop("hashes", "{}"))
        names += [key[5:] for key in hashes if key.lower().startswith("lora:")]
    used = {lora["name"].rpartition("/")[2] for lora in imported.fields.get("loras", ())}
    for name in sorted({name.rpartition("/")[2] for name in names} - used - {""}):
        imported.add_note(f"LoRA {name}", "left out because the text does not say its weight")


def _import_pairs(imported: ImportedRequest, pairs: dict[str, str], rest: list[str]) -> None:
    """Import the pairs that have a field; note the others and `rest`."""
    sampler = pairs.get("sampler", "")
    for key, import_value in _IMPORTERS.items():
        if value := pairs.pop(key, ""):
            import_value(imported, value)
    _import_schedule(imported, pairs, sampler)
    _import_edits(imported, pairs)
    rest += [f"{key}: {value}" for key, value in pairs.items() if key not in _IGNORED_KEYS]
    for piece in rest[:_MAX_SHOWN_PAIRS]:
        imported.add_note(piece, "not supported")
    if len(rest) > _MAX_SHOWN_PAIRS:
        imported.add_note(f"{len(rest) - _MAX_SHOWN_PAIRS} more parameters", "left out")


def _import_schedule(imported: ImportedRequest, pairs: dict[str, str], sampler: str) -> None:
    """Import the schedule, or note that the keys and the name of the sampler have several.

    DDIM only implies a schedule, which a key overrides.
    """
    named = imported.fields.get("scheduler") if sampler.lower() != "ddim" else None
    found = {named} if named else set()
    for key in ("schedule type", "scheduler"):
        if value := pairs.pop(key, ""):
            imported.set_schedule(value)
            if schedule := find_schedule(value):
                found.add(schedule)
    if len(found) > 1:
        del imported.fields["scheduler"]
        listed = ", ".join(sorted(found))
        imported.add_note(f"scheduler {listed}", "several schedules; none of them is used")


def _import_steps(imported: ImportedRequest, value: str) -> None:
    imported.set_number("steps", value, source="steps", kind=int)


def _import_cfg_scale(imported: ImportedRequest, value: str) -> None:
    imported.set_number("cfg_scale", value, source="CFG scale", kind=float)


def _import_seed(imported: ImportedRequest, value: str) -> None:
    imported.set_number("seed", value, source="seed", kind=int)


def _import_model_hash(imported: ImportedRequest, value: str) -> None:
    imported.checkpoint = value


def _import_model(imported: ImportedRequest, value: str) -> None:
    imported.model = value


def _import_options(imported: ImportedRequest, text: str) -> None:
    """Import sampler options as this service writes them; the request checks their values."""
    options = None
    with suppress(ValueError):
        options = load_json(text)
    if isinstance(options, dict):
        imported.fields["sampler_options"] = options
    else:
        imported.add_note(f"sampler options: {text}", "not valid JSON")


def _import_size(imported: ImportedRequest, size: str) -> None:
    if SIZE.fullmatch(size):
        imported.fields["resolution"] = size
    else:
        imported.add_note(f"size {size}", "not WIDTHxHEIGHT")


_IMPORTERS: dict[str, Callable[[ImportedRequest, str], None]] = {
    "steps": _import_steps,
    "sampler": ImportedRequest.set_sampler,
    "sampler options": _import_options,
    "cfg scale": _import_cfg_scale,
    "seed": _import_seed,
    "size": _import_size,
    "model hash": _import_model_hash,
    "model": _import_model,
}
"""The function for each lower-case key, in order; a later key overrides an earlier one."""


def _import_edits(imported: ImportedRequest, pairs: dict[str, str]) -> None:
    """Import the input images, which only this service names, and the second pass.

    `Denoising strength` belongs to the input image, or to the second pass if there is none.
    """
    strength = pairs.pop("denoising strength", "")
    hires = {key: pairs.pop(key) for key in list(pairs) if key.startswith("hires ")}
    if init_image := pairs.pop("init image", ""):
        imported.fields["init_image"] = init_image
        if mask := pairs.pop("mask", ""):
            imported.fields["mask"] = mask
        if strength:
            imported.set_number("strength", strength, source="denoising strength", kind=float)
    elif hires:
        hires.setdefault("hires strength", strength)
    elif strength:
        imported.add_note(
            f"denoising strength: {strength}",
            "made from another image, which is not in the file",
        )
    if hires:
        _import_second_pass(imported, hires)


def _import_second_pass(imported: ImportedRequest, hires: dict[str, str]) -> None:
    """Import `hires` from its keys, or note them if the scale is missing."""
    second = ImportedRequest()
    for key, name, kind in (
        ("hires upscale", "scale", float),
        ("hires steps", "steps", int),
        ("hires strength", "strength", float),
    ):
        if value := hires.pop(key, ""):
            second.set_number(name, value, source=key, kind=kind)
    if upscaler := hires.pop("hires upscaler", ""):
        second.fields["upscaler"] = find_upscaler(second, upscaler)
    imported.notes += second.notes
    if "scale" in second.fields:
        imported.fields["hires"] = second.fields
    else:
        imported.add_note(f"second pass {second.fields}", "left out because it has no scale")
    for key, value in hires.items():
        imported.add_note(f"{key}: {value}", "not supported")


def find_upscaler(imported: ImportedRequest, title: str) -> str:
    """Find an upscaler by its display name, or use the most similar one and note that."""
    for name, ours in UPSCALER_DISPLAY_NAMES.items():
        if title == ours:
            return name
    name = "latent" if title.lower().startswith("latent") else "lanczos"
    imported.add_note(f"upscaler {title}", f"not offered; {name} is used instead")
    return name
