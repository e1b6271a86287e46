"""Splits an infotext into its prompts and its `key: value` pairs, without interpreting them."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from model.recipes.imported import plain_text

MAX_INFOTEXT_CHARS = 200_000
_MIN_PAIRS = 3
NEGATIVE = "Negative prompt:"

# Matching takes linear time: every repetition is bounded or cannot overlap with what follows.
_STEPS = re.compile(r"Steps:\s{0,8}\d")
_KEY = re.compile(r"\s{0,8}(\w[\w \-/]{0,63}):\s{0,8}")
_VALUE = re.compile(r'("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_JSON = json.JSONDecoder()
_MAX_JSON_CHARS = 20_000
_END = re.compile(r"\s{0,8}(?:,|$)")
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)
_MARKERS = re.compile(r"(Negative prompt|Negative template|Template|Steps)(?=\s{0,8}:)")

_KNOWN_KEYS = frozenset(
    {
        *("steps", "sampler", "sampler options", "schedule type", "scheduler", "cfg scale", "seed"),
        *("size", "model", "model hash", "version", "app", "denoising strength", "clip skip"),
        *("vae", "vae hash", "ensd", "rng", "pipeline", "hires upscale", "hires upscaler"),
        *("hires steps", "lora hashes", "hashes", "batch size", "batch pos"),
    }
)
"""Keys of which one must begin the line of parameters if it does not begin with `Steps`."""


class Infotext(NamedTuple):
    """The parts of an infotext. Text that is not a pair has an empty key in `pairs`."""

    prompt: str
    negative_prompt: str
    pairs: list[tuple[str, str]]
    rest: list[str]


def split_infotext(text: str) -> Infotext:
    """Split an infotext; `rest` has the lines after the parameters.

    Raises:
        ValueError: the text is longer than MAX_INFOTEXT_CHARS or has no line of parameters.
    """
    if len(text) > MAX_INFOTEXT_CHARS:
        raise ValueError(f"the infotext has {len(text)} characters; at most {MAX_INFOTEXT_CHARS}")
    lines = [line.strip() for line in plain_text(text).split("\n")]
    place = _line_of_pairs(lines)
    if place is None:
        raise ValueError(
            "the text is not an infotext: no line of it begins with a known key such as Steps or "
            "Seed"
        )
    prompt, negative = _prompts(lines[:place])
    pairs = [*_pairs(lines[place])]
    return Infotext(prompt, negative, pairs, [*filter(None, lines[place + 1 :])])


def is_infotext(text: str) -> bool:
    """Whether a text has a line of parameters."""
    try:
        split_infotext(text)
    except ValueError:
        return False
    return True


def parse_parameters(text: str) -> dict[str, str]:
    """Parse an infotext into strings by key, as the web UI does for its clients.

    The keys include `Prompt` and `Negative prompt`. A size such as `Size: 512x768` becomes
    `Size-1` and `Size-2`.

    Raises:
        ValueError: as `split_infotext`.
    """
    parts = split_infotext(text)
    parameters = {"Prompt": parts.prompt, "Negative prompt": parts.negative_prompt}
    for key, value in parts.pairs:
        if size := SIZE.fullmatch(value):
            parameters[f"{key}-1"], parameters[f"{key}-2"] = size.groups()
        elif key:
            parameters[key] = value
    return parameters


def break_markers(text: str) -> str:
    """Write words that begin a part of an infotext with a blank before their colon."""
    return _MARKERS.sub(r"\1 ", text)


def quoted(value: str) -> str:
    """Write a value as a JSON string if it would not be read again as it is."""
    needs_quotes = set(value) & set(',:"\n\r') or value[:1] in ("{", "[") or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value


def _line_of_pairs(lines: list[str]) -> int | None:
    """Index of the parameters: the last line with `Steps: ` and a number, or last line of pairs."""
    for place in reversed(range(len(lines))):
        if _STEPS.match(lines[place]):
            return place
    for place in reversed(range(len(lines))):
        if lines[place]:
            keys = [key.lower() for key, _ in _pairs(lines[place])]
            is_known = keys[0] in _KNOWN_KEYS and len([*filter(None, keys)]) >= _MIN_PAIRS
            return place if is_known else None
    return None


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt, which starts at the line `Negative prompt:`."""
    for place, line in enumerate(lines):
        if line.startswith(NEGATIVE):
            first = line.removeprefix(NEGATIVE)
            negative = "\n".join([first, *lines[place + 1 :]])
            return "\n".join(lines[:place]).strip(), negative.strip()
    return "\n".join(lines).strip(), ""


def _pairs(line: str) -> Iterator[tuple[str, str]]:
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
