"""Converts the weights of NovelAI's prompts into the weights of this service."""

import re
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

_BRACE = 1.05
_MAX_WEIGHT = 10.0
_MAX_POWER = 100
_TOKEN = re.compile(
    r"((?<![\w.])-?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))::|::|[{}\[\]]|[^{}\[\]:\-\d.]+|.", re.DOTALL
)
_POWERS = {"{": 1, "[": -1, "}": -1, "]": 1}


class ConvertedPrompt(NamedTuple):
    """A prompt with weights of this service, and what it had before.

    `too_strong` has the weights beyond those that this service allows; the nearest one is used.
    """

    text: str
    is_weighted: bool
    too_strong: tuple[str, ...]


def convert_weights(text: str) -> ConvertedPrompt:
    """Convert a prompt.

    `{x}` multiplies the weight by 1.05, `[x]` divides by it, and `1.5::x::` sets a factor. Round
    brackets have no meaning there and are escaped. Marks that are not closed end with the text.
    """
    pieces: list[tuple[str, float]] = []
    too_strong: dict[str, None] = {}
    power, factor, is_factor_open, is_weighted = 0, 1.0, False, False
    for match in _TOKEN.finditer(text):
        mark = match[0]
        if match[1] is not None:
            factor, is_factor_open, is_weighted = float(match[1]), True, True
        elif mark == "::" and is_factor_open:
            factor, is_factor_open = 1.0, False
        elif mark in _POWERS:
            power = max(-_MAX_POWER, min(power + _POWERS[mark], _MAX_POWER))
            is_weighted = True
        else:
            wanted = factor * _BRACE**power
            weight = max(-_MAX_WEIGHT, min(wanted, _MAX_WEIGHT))
            if weight != wanted and mark.strip():
                too_strong[f"{wanted:g}"] = None
            pieces.append((re.sub(r"([()])", r"\\\1", mark), weight))
    runs = groupby(pieces, key=itemgetter(1))
    texts = [_written("".join(text for text, _ in run), weight) for weight, run in runs]
    return ConvertedPrompt("".join(texts), is_weighted, tuple(too_strong))


def _written(text: str, weight: float) -> str:
    is_plain = weight == 1 or not text.strip()
    # A backslash before the bracket of the next text would make it a letter.
    return text if is_plain and not text.endswith("\\") else f"({text}:{weight:.4g})"
