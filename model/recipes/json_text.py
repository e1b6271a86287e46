"""Parses JSON from files that anybody may have written, within bounds of time and memory."""

import json
from typing import Any, Final

MAX_VALUES: Final = 100_000
"""Commas and opening brackets, those inside of texts included. Large workflows have some thousand.

The parser holds up all threads of the process for the time that it takes.
"""

_MAX_DEPTH: Final = 200
"""Lists and objects inside of each other. Python's own limit differs by version."""

_MAX_DIGITS: Final = 400
"""Digits of a whole number: the time to read one grows with the square of its length."""


def load_json(text: str) -> Any:
    """The parsed text.

    Raises:
        ValueError: it is not JSON, has too many values or digits, or nests too deeply.
    """
    if (count := sum(map(text.count, (",", "[", "{")))) > MAX_VALUES:
        raise ValueError(f"the JSON has about {count} values; at most {MAX_VALUES} are read")
    try:
        value = json.loads(text, parse_int=_whole_number)
    except RecursionError as exc:
        raise ValueError("the JSON nests too deeply") from exc
    level = [value]
    for _ in range(_MAX_DEPTH):
        parents = [one for one in level if isinstance(one, list | dict)]
        if not parents:
            return value
        level = [
            child for one in parents for child in (one.values() if isinstance(one, dict) else one)
        ]
    raise ValueError("the JSON nests too deeply")


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; at most {_MAX_DIGITS} are read")
    return int(digits)
