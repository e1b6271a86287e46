"""Writes and reads infotext, the `parameters` text of the A1111 web UI.

It has the prompt, a `Negative prompt:` line, and a line of `key: value` pairs.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from model.recipes.imported import ImportedRequest, read_number
from model.recipes.recipe import Recipe
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, UPSCALER_DISPLAY_NAMES

MAX_INFOTEXT_CHARS = 200_000
_MAX_SHOWN_PAIRS = 40
_MIN_PAIRS = 3
_NEGATIVE = "Negative prompt:"

# Matching takes linear time: every repetition is bounded or cannot overlap with what follows.
_KEY = re.compile(r"\s{0,8}(\w[\w \-/]{0,63}):\s{0,8}")
_VALUE = re.compile(r'("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_JSON = json.JSONDecoder()
_MAX_JSON_CHARS = 20_000
_END = re.compile(r"\s{0,8}(?:,|$)")
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:<>]{1,200})((?::[^:<>]{0,40}){0,4})>")

_IGNORED_KEYS = frozenset(
    {"version", "lora hashes", "hashes", "batch size", "batch pos", "created date", "time taken"}
)
"""Keys that do not affect the picture or repeat other keys."""


def write_infotext(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """Write the infotext of one picture; `seed` is that of the picture.

    LoRAs are in the prompt and the negative line is always present, as other programs expect.
    """
    pairs = {
        "Steps": request.steps,
        "Sampler": SAMPLER_CATALOG[request.sampler].display_name,
        "Schedule type": SCHEDULE_DISPLAY_NAMES[request.scheduler],
        "Sampler options": json.dumps(request.sampler_options) if request.sampler_options else "",
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        **_edits(request),
        "Model hash": recipe.checkpoint[:10],
        "Model": recipe.card,
        "Lora hashes": ", ".join(f"{lora.name}: {lora.sha256[:12]}" for lora in request.loras),
        "Version": recipe.service,
    }
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value != "")
    return f"{prompt_with_loras(request)}\n{_NEGATIVE} {request.negative_prompt}\n{line}"


def prompt_with_loras(request: ResolvedRequest) -> str:
    """The prompt with the LoRAs in the syntax of the web UI."""
    return request.prompt + "".join(
        f" <lora:{lora.name}:{lora.weight:g}>" for lora in request.loras
    )


def _edits(request: ResolvedRequest) -> dict[str, str | int]:
    """The input pictures and the second pass, under the keys of the web UI.

    `Denoising strength` belongs to the input picture, or to the second pass if there is none.
    """
    pairs: dict[str, str | int] = {}
    hires = request.hires
    if request.init_image:
        pairs["Denoising strength"] = f"{request.strength:g}"
        pairs["Init image"] = request.init_image
    elif hires:
        pairs["Denoising strength"] = f"{hires.strength:g}"
    if request.mask:
        pairs["Mask"] = request.mask
    if hires:
        pairs["Hires upscale"] = f"{hires.scale:g}"
        pairs["Hires steps"] = hires.steps
        pairs["Hires upscaler"] = UPSCALER_DISPLAY_NAMES[hires.upscaler]
        if request.init_image:
            pairs["Hires strength"] = f"{hires.strength:g}"
    return pairs


def _quoted(value: str) -> str:
    """Write a value that contains a separator as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def read_infotext(text: str) -> ImportedRequest:
    """Read an infotext of this service or of another program.

    Raises:
        ValueError: it is longer than MAX_INFOTEXT_CHARS.
    """
    imported = ImportedRequest()
    lines = _lines(text)
    place = _line_of_pairs(lines)
    if place is None:
        imported.add_note(
            "the file's text", "it has no line of parameters; all of it is used as the prompt"
        )
    else:
        for line in filter(str.strip, lines[place + 1 :]):
            imported.add_note(line, "text after the parameters is left out")
        _import_pairs(imported, lines[place])
    prompt, negative = _prompts(lines[:place])
    imported.fields["prompt"] = extract_networks(imported, prompt)
    if place is not None or negative:
        # The web UI ignores networks in the negative prompt.
        imported.fields["negative_prompt"] = extract_networks(imported, negative, is_used=False)
    return imported


def parse_parameters(text: str) -> dict[str, str]:
    """Parse an infotext into strings by key, as the web UI does for its clients.

    The keys include `Prompt` and `Negative prompt`. A size such as `Size: 512x768` becomes
    `Size-1` and `Size-2`.

    Raises:
        ValueError: it is longer than MAX_INFOTEXT_CHARS.
    """
    lines = _lines(text)
    place = _line_of_pairs(lines)
    prompt, negative = _prompts(lines[:place])
    parameters = {"Prompt": prompt.strip(), "Negative prompt": negative.strip()}
    for key, value in _pairs(lines[place]) if place is not None else ():
        if size := _SIZE.fullmatch(value):
            parameters[f"{key}-1"], parameters[f"{key}-2"] = size.groups()
        elif key:
            parameters[key] = value
    return parameters


def _lines(text: str) -> list[str]:
    if len(text) > MAX_INFOTEXT_CHARS:
        raise ValueError(f"the infotext has {len(text)} characters; at most {MAX_INFOTEXT_CHARS}")
    return text.split("\n")


def _line_of_pairs(lines: list[str]) -> int | None:
    """Index of the parameters: the last line that starts with `Steps:`, or a last line of pairs."""
    for place in reversed(range(len(lines))):
        if lines[place].lstrip().startswith("Steps:"):
            return place
    for place in reversed(range(len(lines))):
        if lines[place].strip():
            pairs = [pair for pair in _pairs(lines[place]) if pair[0]]
            return place if len(pairs) >= _MIN_PAIRS else None
    return None


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt, which starts at the line `Negative prompt:`."""
    for place, line in enumerate(lines):
        if line.startswith(_NEGATIVE):
            first = line.removeprefix(_NEGATIVE).removeprefix(" ")
            return "\n".join(lines[:place]), "\n".join([first, *lines[place + 1 :]])
    return "\n".join(lines), ""


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Keys and values in order; text that is not a pair has an empty key."""
    position = 0
    while position < len(line):
        key = _KEY.match(line, position)
        if key:
            value, position = _value(line, key.end())
            yield key[1].strip(), value
        else:
            end = line.find(",", position)
            end = len(line) if end < 0 else end
            if piece := line[position:end].strip():
                yield "", piece
            position = end + 1


def _value(line: str, position: int) -> tuple[str, int]:
    """The value at `position` and the position of the next pair. A value may be bare JSON."""
    if line[position : position + 1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            # A slice, because a JSON error counts the lines of the whole text.
            _, length = _JSON.raw_decode(line[position : position + _MAX_JSON_CHARS])
            if after := _END.match(line, position + length):
                return line[position : position + length], after.end()
    match = _VALUE.match(line, position)
    if match is None:  # never: the pattern matches any text
        return line[position:], len(line)
    return _unquoted(match[1].strip()), match.end()


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value[1:-1]


def _import_pairs(imported: ImportedRequest, line: str) -> None:
    """Import the pairs that have a field and note the others."""
    pairs, rest = {}, []
    for key, value in _pairs(line):
        if key:
            pairs[key.lower()] = value
        else:
            rest.append(value)
    for key, import_value in _IMPORTERS.items():
        if value := pairs.pop(key, ""):
            import_value(imported, value)
    _import_edits(imported, pairs)
    rest += [f"{key}: {value}" for key, value in pairs.items() if key not in _IGNORED_KEYS]
    for piece in rest[:_MAX_SHOWN_PAIRS]:
        imported.add_note(piece, "not supported")
    if len(rest) > _MAX_SHOWN_PAIRS:
        imported.add_note(f"{len(rest) - _MAX_SHOWN_PAIRS} more parameters", "left out")


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
    with suppress(ValueError, RecursionError):
        options = json.loads(text)
    if isinstance(options, dict):
        imported.fields["sampler_options"] = options
    else:
        imported.add_note(f"sampler options: {text}", "not valid JSON")


def _import_size(imported: ImportedRequest, size: str) -> None:
    if _SIZE.fullmatch(size):
        imported.fields["resolution"] = size
    else:
        imported.add_note(f"size {size}", "not WIDTHxHEIGHT")


_IMPORTERS: dict[str, Callable[[ImportedRequest, str], None]] = {
    "steps": _import_steps,
    "sampler": ImportedRequest.set_sampler,
    "sampler options": _import_options,
    "schedule type": ImportedRequest.set_schedule,
    "scheduler": ImportedRequest.set_schedule,
    "cfg scale": _import_cfg_scale,
    "seed": _import_seed,
    "size": _import_size,
    "model hash": _import_model_hash,
    "model": _import_model,
}
"""The function for each lower-case key, in order; a later key overrides an earlier one."""


def _import_edits(imported: ImportedRequest, pairs: dict[str, str]) -> None:
    """Import the input pictures, which only this service names, and the second pass.

    `Denoising strength` belongs to the input picture, or to the second pass if there is none.
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
            "made from another picture, which is not in the file",
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
    imported.add_note(f"upscaler {title}", f"unknown; {name} is used")
    return name


def extract_networks(imported: ImportedRequest, prompt: str, *, is_used: bool = True) -> str:
    """Remove networks such as `<lora:name:weight>` from a prompt; they become fields or notes."""

    def replace(match: re.Match[str]) -> str:
        kind, name, arguments = match.groups()
        if kind == "hypernet" or not is_used:
            imported.add_note(match[0], "left out")
            return ""
        first, *others = arguments.split(":")[1:] or ["1"]
        weight = read_number(first, float)
        if weight is None or others:
            imported.add_note(match[0], "only the first number is used, as the weight of all parts")
        imported.add_lora(name, 1.0 if weight is None else weight)
        return ""

    without = _NETWORK.sub(replace, prompt)
    return prompt if without == prompt else without.strip()
