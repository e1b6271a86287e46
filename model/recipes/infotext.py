"""The `parameters` text of the A1111 web UI, which most tools write into picture files and read.

Prompt, a `Negative prompt:` line, then `key: value` pairs on a line of their own. Knows no files.
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
_FEWEST_PAIRS = 3
_NEGATIVE = "Negative prompt:"

# Every repetition is bounded or cannot overlap with what follows it: matching takes linear time.
_KEY = re.compile(r"\s{0,8}(\w[\w \-/]{0,63}):\s{0,8}")
_VALUE = re.compile(r'("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_JSON = json.JSONDecoder()
_MAX_JSON_CHARS = 20_000
_END = re.compile(r"\s{0,8}(?:,|$)")
_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:<>]{1,200})((?::[^:<>]{0,40}){0,4})>")

_SAY_NOTHING = frozenset(
    {"version", "lora hashes", "hashes", "batch size", "batch pos", "created date", "time taken"}
)
"""Keys that change no picture, or say once more what others say."""


def write_infotext(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """The recipe of one picture as the web UI writes it; `seed` is the picture's own.

    LoRAs stand in the prompt, where its readers look for them. The negative line is there also
    when empty, for the same reason. Of the checkpoint's SHA-256 ten digits are shown.
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
    """The prompt as the web UI takes it: LoRAs are part of it."""
    return request.prompt + "".join(
        f" <lora:{lora.name}:{lora.weight:g}>" for lora in request.loras
    )


def _edits(request: ResolvedRequest) -> dict[str, str | int]:
    """What the picture started from and what came after it, under the web UI's keys.

    There the one `Denoising strength` is the second pass' where no picture came first.
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
    """A value with a separator in it is written as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def read_infotext(text: str) -> ImportedRequest:
    """What an infotext asks for, ours or another program's.

    Raises:
        ValueError: it is longer than MAX_INFOTEXT_CHARS.
    """
    reading = ImportedRequest()
    lines = _lines(text)
    place = _line_of_pairs(lines)
    if place is None:
        reading.note("the file's text", "it has no line of parameters; all of it is the prompt")
    else:
        for line in filter(str.strip, lines[place + 1 :]):
            reading.note(line, "what follows the parameters is left out")
        _take_pairs(reading, lines[place])
    prompt, negative = _prompts(lines[:place])
    reading.fields["prompt"] = extract_networks(reading, prompt)
    if place is not None or negative:
        # Of a negative prompt the web UI ignores them.
        reading.fields["negative_prompt"] = extract_networks(reading, negative, is_used=False)
    return reading


def parse_parameters(text: str) -> dict[str, str]:
    """An infotext taken apart as the web UI does for its clients: all values are texts.

    `Prompt` and `Negative prompt` are among the keys, and a size such as `Size: 512x768` is there
    as `Size-1` and `Size-2`.

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
    """Where the parameters are: the last line that begins with steps, or a last one of pairs."""
    for place in reversed(range(len(lines))):
        if lines[place].lstrip().startswith("Steps:"):
            return place
    for place in reversed(range(len(lines))):
        if lines[place].strip():
            pairs = [pair for pair in _pairs(lines[place]) if pair[0]]
            return place if len(pairs) >= _FEWEST_PAIRS else None
    return None


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt; the latter begins with the line that says so."""
    for place, line in enumerate(lines):
        if line.startswith(_NEGATIVE):
            first = line.removeprefix(_NEGATIVE).removeprefix(" ")
            return "\n".join(lines[:place]), "\n".join([first, *lines[place + 1 :]])
    return "\n".join(lines), ""


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Keys and values in order; a piece that is no pair comes with an empty key."""
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
    """The value that begins here, and where the next pair does; some programs write bare JSON."""
    if line[position : position + 1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            # A piece, because an error counts the lines of all that it was given.
            _, length = _JSON.raw_decode(line[position : position + _MAX_JSON_CHARS])
            if after := _END.match(line, position + length):
                return line[position : position + length], after.end()
    match = _VALUE.match(line, position)
    if match is None:  # without a comma or an end nothing is left
        return line[position:], len(line)
    return _unquoted(match[1].strip()), match.end()


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value[1:-1]


def _take_pairs(reading: ImportedRequest, line: str) -> None:
    """Carry over what has a field; note the rest."""
    pairs, rest = {}, []
    for key, value in _pairs(line):
        if key:
            pairs[key.lower()] = value
        else:
            rest.append(value)
    for key, take in _TAKEN.items():
        if value := pairs.pop(key, ""):
            take(reading, value)
    _take_edits(reading, pairs)
    rest += [f"{key}: {value}" for key, value in pairs.items() if key not in _SAY_NOTHING]
    for piece in rest[:_MAX_SHOWN_PAIRS]:
        reading.note(piece, "there is nothing like it here")
    if len(rest) > _MAX_SHOWN_PAIRS:
        reading.note(f"{len(rest) - _MAX_SHOWN_PAIRS} more parameters", "left out")


def _take_steps(reading: ImportedRequest, value: str) -> None:
    reading.set_number("steps", value, source="steps", kind=int)


def _take_cfg_scale(reading: ImportedRequest, value: str) -> None:
    reading.set_number("cfg_scale", value, source="CFG scale", kind=float)


def _take_seed(reading: ImportedRequest, value: str) -> None:
    reading.set_number("seed", value, source="seed", kind=int)


def _take_model_hash(reading: ImportedRequest, value: str) -> None:
    reading.checkpoint = value


def _take_model(reading: ImportedRequest, value: str) -> None:
    reading.model = value


def _take_options(reading: ImportedRequest, text: str) -> None:
    """What this service writes of a sampler's options; their values are the service's to check."""
    options = None
    with suppress(ValueError, RecursionError):
        options = json.loads(text)
    if isinstance(options, dict):
        reading.fields["sampler_options"] = options
    else:
        reading.note(f"sampler options: {text}", "they cannot be read")


def _take_size(reading: ImportedRequest, size: str) -> None:
    if _SIZE.fullmatch(size):
        reading.fields["resolution"] = size
    else:
        reading.note(f"size {size}", "this is not WIDTHxHEIGHT")


_TAKEN: dict[str, Callable[[ImportedRequest, str], None]] = {
    "steps": _take_steps,
    "sampler": ImportedRequest.set_sampler,
    "sampler options": _take_options,
    "schedule type": ImportedRequest.set_schedule,
    "scheduler": ImportedRequest.set_schedule,
    "cfg scale": _take_cfg_scale,
    "seed": _take_seed,
    "size": _take_size,
    "model hash": _take_model_hash,
    "model": _take_model,
}
"""Keys in small letters, in the order in which they count: a later one wins."""


def _take_edits(reading: ImportedRequest, pairs: dict[str, str]) -> None:
    """The picture it started from and the second pass; other programs do not name the former.

    `Denoising strength` belongs to the picture where there is one, else to the second pass.
    """
    strength = pairs.pop("denoising strength", "")
    hires = {key: pairs.pop(key) for key in list(pairs) if key.startswith("hires ")}
    if picture := pairs.pop("init image", ""):
        reading.fields["init_image"] = picture
        if mask := pairs.pop("mask", ""):
            reading.fields["mask"] = mask
        if strength:
            reading.set_number("strength", strength, source="denoising strength", kind=float)
    elif hires:
        hires.setdefault("hires strength", strength)
    elif strength:
        reading.note(
            f"denoising strength: {strength}",
            "the picture was made from another one, which the file does not hold",
        )
    if hires:
        _take_second_pass(reading, hires)


def _take_second_pass(reading: ImportedRequest, hires: dict[str, str]) -> None:
    """`hires` from its keys; without a factor there is none, and what else there is is noted."""
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
    reading.notes += second.notes
    if "scale" in second.fields:
        reading.fields["hires"] = second.fields
    else:
        reading.note(f"second pass {second.fields}", "left out, since its factor is not known")
    for key, value in hires.items():
        reading.note(f"{key}: {value}", "there is nothing like it here")


def find_upscaler(reading: ImportedRequest, title: str) -> str:
    """Our upscaler of this name, or the nearest with a note."""
    for name, ours in UPSCALER_DISPLAY_NAMES.items():
        if title == ours:
            return name
    name = "latent" if title.lower().startswith("latent") else "lanczos"
    reading.note(f"upscaler {title}", f"{name} is taken, the nearest here")
    return name


def extract_networks(reading: ImportedRequest, prompt: str, *, is_used: bool = True) -> str:
    """The prompt without `<lora:name:weight>` and the like, which become fields or notes."""

    def take(match: re.Match[str]) -> str:
        kind, name, arguments = match.groups()
        if kind == "hypernet" or not is_used:
            reading.note(match[0], "it is left out")
            return ""
        first, *others = arguments.split(":")[1:] or ["1"]
        weight = read_number(first, float)
        if weight is None or others:
            reading.note(match[0], "only a first number is understood, as the weight of all parts")
        reading.add_lora(name, 1.0 if weight is None else weight)
        return ""

    without = _NETWORK.sub(take, prompt)
    return prompt if without == prompt else without.strip()
