"""Parses JSON from files that anybody may have written, within bounds of time and memory."""

import json
from typing import Any, Final

MAX_VALUES: Final = 100_000
"""Commas and opening brackets, those inside of texts included. Large workflows have some thousand.

The parser holds up all threads of the process for the time that it takes.
"""

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
        return json.loads(text, parse_int=_whole_number)
    except RecursionError as exc:
        raise ValueError("the JSON nests too deeply") from exc


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; at most {_MAX_DIGITS} are read")
    return int(digits)
