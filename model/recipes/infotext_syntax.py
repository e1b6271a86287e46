"""Splits an infotext into its prompts and its `key: value` pairs, without interpreting them."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from model.recipes.imported import plain_text

MAX_INFOTEXT_CHARS = 200_000
_MIN_PAIRS = 3
NEGATIVE = "Negative prompt:"
BYTE_ORDER_MARKS = "\ufeff\ufffe"
"""Characters that a reader takes for a byte order mark at the beginning of a text."""

_HIDDEN = str.maketrans({char: f"\\u{ord(char):04x}" for char in f":<{BYTE_ORDER_MARKS}"})

# Matching takes linear time: every repetition is bounded or cannot overlap with what follows.
_WHOLE_NUMBER = re.compile(r"\d{1,9}(?:\.0{0,6})?", re.ASCII)
_KEY = re.compile(r"\s{0,8}(\w[\w \-/]{0,63}):\s{0,8}")
_VALUE = re.compile(r'("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_JSON = json.JSONDecoder()
_MAX_JSON_CHARS = 20_000
_MAX_JSON_ERRORS = 10
"""Values of a line that look like JSON and are not: each is read twice, up to its error."""

_END = re.compile(r"\s{0,8}(?:,|$)")
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)
_NEGATIVE_LINE = re.compile(r"negative[ _-]?prompt[:：﹕]", re.IGNORECASE)
"""Begins the negative prompt at the start of a line, in the spellings of all writers."""

_UNCLEAR = re.compile(
    r"neg(?:ative)?[\s_-]{0,3}prompts?\s{0,8}[:：﹕=]|undesired content\s{0,8}[:：]|"
    r"(?:反向|负面|負面|负向|負向|反面)(?:提示)?[词詞]\s{0,8}[:：]|ネガティブ(?:プロンプト)?\s{0,8}[:：]|"
    r"^(?:neg(?:atives?)?|uc|(?:positive )?prompt|(?:negative )?template)\s{0,8}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
"""Looks like the beginning of another text than the prompt, but may be a part of it."""

_KNOWN_KEYS = frozenset(
    {
        *("steps", "sampler", "sampler options", "schedule type", "scheduler", "cfg scale", "seed"),
        *("size", "model", "model hash", "version", "app", "denoising strength", "clip skip"),
        *("vae", "vae hash", "ensd", "rng", "pipeline", "hires upscale", "hires upscaler"),
        *("hires steps", "lora hashes", "hashes", "batch size", "batch pos"),
    }
)
"""Keys of which one must begin the line of parameters if it does not begin with `Steps`."""


_MARKERS = re.compile(
    r"(neg(?:ative)?[ _-]?prompts?|negative|negative template|template|"
    rf"{'|'.join(sorted(_KNOWN_KEYS, key=len, reverse=True))})(?=\s{{0,8}}[:：﹕=])",
    re.IGNORECASE,
)
"""Begins a part of an infotext, or a parameter."""


_PARAMETER = re.compile(
    r"(?:steps|seed|cfg scale|denoising strength)\s{0,8}[:：﹕=]\s{0,8}[\d.\"'-]|"
    r"size\s{0,8}[:：﹕=]\s{0,8}\d{1,6}x|neg(?:ative)?[ _-]?prompts?\s{0,8}[:：﹕=]|"
    r"(?:sampler|schedule type|model hash|lora hashes)\s{0,8}[:：﹕=]",
    re.IGNORECASE,
)


class Infotext(NamedTuple):
    """The parts of an infotext. Text that is not a pair has an empty key in `pairs`.

    `is_exact` says that the pairs repeat the prompts, as this service writes them if they look like
    other parts of an infotext.
    """

    prompt: str
    negative_prompt: str
    pairs: list[tuple[str, str]]
    rest: list[str]
    is_exact: bool


def split_infotext(text: str) -> Infotext:
    """Split an infotext; `rest` has the lines after the parameters.

    Raises:
        ValueError: the text is longer than MAX_INFOTEXT_CHARS, has no line of parameters, or does
            not say clearly what its prompt is.
    """
    parts, places = _split(text)
    if not parts.is_exact:
        if len(places) > 1:
            raise ValueError(
                f"the text has {len(places)} lines of parameters, and it does not say which of "
                "them is part of a prompt"
            )
        if mark := unclear_mark(parts.prompt):
            raise ValueError(f"the prompt has {mark!r}, which may begin another text")
    return parts


def unclear_mark(text: str) -> str:
    """What looks like the beginning of another text inside a prompt; "" if nothing does."""
    found = _UNCLEAR.search(text)
    return found[0].strip() if found else ""


def _split(text: str) -> tuple[Infotext, list[int]]:
    """Split at the last line of parameters; also the places of all such lines."""
    if len(text) > MAX_INFOTEXT_CHARS:
        raise ValueError(f"the infotext has {len(text)} characters; at most {MAX_INFOTEXT_CHARS}")
    lines = [line.strip() for line in plain_text(text).split("\n")]
    places = [place for place, line in enumerate(lines) if _is_parameters(line)]
    if not places:
        raise ValueError(
            "the text is not an infotext: no line of it begins with a known key such as Steps or "
            "Seed"
        )
    place = places[-1]
    prompt, negative = _prompts(lines[:place])
    pairs = [*_pairs(lines[place])]
    is_exact = {"Exact prompt", "Exact negative prompt"} <= {key for key, _ in pairs}
    rest = [*filter(None, lines[place + 1 :])]
    return Infotext(prompt, negative, pairs, rest, is_exact), places


def is_infotext(text: str) -> bool:
    """Whether a text has a line of parameters."""
    try:
        _split(text)
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


def has_parameters(text: str) -> bool:
    """Whether a prompt has words that simple readers would take for a parameter."""
    return _PARAMETER.search(text) is not None


def break_markers(text: str) -> str:
    """Write words that begin a part of an infotext with a blank before their colon."""
    return _MARKERS.sub(r"\1 ", text)


def quoted(value: str) -> str:
    """Write a value as a JSON string if it would not be read again as it is."""
    needs_quotes = set(value) & set(',:"\n\r') or value[:1] in ("{", "[") or value != value.strip()
    if has_parameters(value):
        return hidden_json(value)
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value


def hidden_json(value: Any) -> str:
    """JSON in which programs that search the whole text find no keys, tags and byte order marks."""
    return json.dumps(value, ensure_ascii=False).translate(_HIDDEN)


def _is_parameters(line: str) -> bool:
    """Whether a line begins with a number of steps, or has several known keys, one at its start."""
    if not _KEY.match(line):
        return False
    pairs = [(key.lower(), value) for key, value in _pairs(line)]
    first, value = pairs[0]
    is_steps = first == "steps" and _WHOLE_NUMBER.fullmatch(value)
    known = sum(key in _KNOWN_KEYS for key, _ in pairs)
    return bool(is_steps) or (first in _KNOWN_KEYS and known >= _MIN_PAIRS)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Prompt and negative prompt, which starts at the line `Negative prompt:`."""
    for place, line in enumerate(lines):
        if _NEGATIVE_LINE.match(line):
            negative = [_NEGATIVE_LINE.sub("", line, count=1) for line in lines[place:]]
            return "\n".join(lines[:place]).strip(), "\n".join(negative).strip()
    return "\n".join(lines).strip(), ""


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    position = errors = 0
    while position < len(line):
        key = _KEY.match(line, position)
        if key:
            may_be_json = line[key.end() : key.end() + 1] in ("{", "[")
            if may_be_json and errors < _MAX_JSON_ERRORS:
                if found := _json_value(line, key.end()):
                    value, position = found
                    yield key[1].strip(), value
                    continue
                errors += 1
            value, position = _value(line, key.end())
            yield key[1].strip(), value
        else:
            end = line.find(",", position)
            end = len(line) if end < 0 else end
            if piece := line[position:end].strip():
                yield "", piece
            position = end + 1


def _json_value(line: str, position: int) -> tuple[str, int] | None:
    """The bare JSON at `position` and the position of the next pair; None if there is none."""
    with suppress(ValueError, RecursionError):
        # A slice, because a JSON error counts the lines of the whole text.
        _, length = _JSON.raw_decode(line[position : position + _MAX_JSON_CHARS])
        if after := _END.match(line, position + length):
            return line[position : position + length], after.end()
    return None


def _value(line: str, position: int) -> tuple[str, int]:
    """The value at `position` and the position of the next pair."""
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
