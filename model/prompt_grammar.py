"""Parses the prompt grammar of ComfyUI: weights in brackets and escaped brackets."""

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from model.errors import PromptError

MAX_PROMPT_CHARS: Final = 10_000
MAX_WEIGHT = 10.0
MAX_NESTING = 20
_BRACKET_WEIGHT = 1.1

_ATOM = re.compile(r"\\[()]|[^\\():]+|.", re.DOTALL)
_ALLOWED_CONTROLS = frozenset("\n\r\t")


class Segment(NamedTuple):
    """A piece of a prompt with one weight, without brackets and the backslashes of escapes."""

    text: str
    weight: float


def check_characters(text: str) -> str:
    """Return the text if tokenizers, logs and image files can hold it.

    Raises:
        ValueError: it contains a lone surrogate or a control code.
    """
    for position, char in enumerate(text):
        category = unicodedata.category(char)
        if category == "Cs" or (category == "Cc" and char not in _ALLOWED_CONTROLS):
            raise ValueError(
                f"character U+{ord(char):04X} at position {position} is not allowed; "
                "use ordinary text"
            )
    return text


def plain_text(text: str) -> str:
    """The text that the tokenizers see, without brackets, weights and escapes."""
    return "".join(segment.text for segment in parse_prompt(text))


@lru_cache(maxsize=16)  # validation, lint and token count parse the same text one after the other
def parse_prompt(text: str) -> tuple[Segment, ...]:
    r"""Split a prompt into segments of one weight each.

    `(x)` multiplies the weight by 1.1, `(x:1.3)` sets it, `\(` and `\)` are literal brackets. A
    bracket that is not closed is text, but the prompt is split there.

    Raises:
        PromptError: a weight is not a number from -10 to 10, or brackets nest deeper than 20.
    """
    atoms = _ATOM.findall(text)
    return tuple(
        Segment("".join(map(_letters, part)), weight)
        for part, weight in _weighted(atoms, weight=1.0, position=0)
    )


def _letters(atom: str) -> str:
    """An atom as text: an escaped bracket loses its backslash."""
    return atom[1] if atom in (r"\(", r"\)") else atom


def _weighted(
    atoms: Sequence[str], *, weight: float, position: int
) -> Iterator[tuple[Sequence[str], float]]:
    """Yield runs of atoms with their weights; `position` is the offset of `atoms` in the prompt."""
    for group in _groups(atoms, position):
        if len(group) >= 2 and group[0] == "(" and group[-1] == ")":
            inner, explicit = _split_weight(group[1:-1])
            inner_weight = weight * _BRACKET_WEIGHT if explicit is None else explicit
            if not (math.isfinite(inner_weight) and abs(inner_weight) <= MAX_WEIGHT):
                raise PromptError(
                    f"weight {inner_weight:g} of the bracket at position {position} is not a "
                    f"number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
                    limit=MAX_WEIGHT,
                )
            yield from _weighted(inner, weight=inner_weight, position=position + 1)
        else:
            yield group, weight
        position += sum(map(len, group))


def _groups(atoms: Sequence[str], position: int) -> Iterator[Sequence[str]]:
    """Split at the outermost brackets: "a (b) c" -> "a ", "(b)", " c"."""
    start = depth = 0
    for index, atom in enumerate(atoms):
        if atom == "(":
            if depth == 0 and index > start:
                yield atoms[start:index]
                start = index
            depth += 1
            if depth > MAX_NESTING:
                raise PromptError(
                    f"brackets nest deeper than {MAX_NESTING} at position "
                    f"{position + sum(map(len, atoms[:index]))}",
                    limit=MAX_NESTING,
                )
        elif atom == ")":
            depth -= 1
            if depth == 0:
                yield atoms[start : index + 1]
                start = index + 1
    if start < len(atoms):
        yield atoms[start:]


def _split_weight(atoms: Sequence[str]) -> tuple[Sequence[str], float | None]:
    """Split "red hair:1.3" into its text and its weight; None if there is no weight."""
    colon = max((index for index, atom in enumerate(atoms) if atom == ":"), default=0)
    if colon == 0:
        return atoms, None
    try:
        return atoms[:colon], float("".join(atoms[colon + 1 :]))
    except ValueError:
        return atoms, None
