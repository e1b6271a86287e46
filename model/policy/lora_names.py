"""Splits names of LoRA files into words: `TeenNude_XLv2.1` becomes `Teen Nude`."""

import re

_VERSION = re.compile(r"[vV]\d[\d.]*[a-z]?(?![A-Za-z])")
_DIGITS = r"|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])"
_WORD_STARTS = (
    re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])" + _DIGITS),
    re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z]{2})(?=[a-z])" + _DIGITS),
    re.compile(r"(?<=[a-z])(?=[A-Z])"),
)
"""After capitals, a word starts with the last of them (`XLNude`) or behind it (`NSFWmaster`).

A digit starts a word or is a letter of it (`L0liXL`).
"""

_SEPARATOR = re.compile(r"[\W_]+")
_MODELS = (
    *("illustrious", "anima", "pony", "pdxl", "sdxl", "ilxl", "xl", "noob", "flux", "qwen", "nai"),
    *(
        "lora",
        "lokr",
        "loha",
        "locon",
        "dora",
        "lyco",
        "sd",
        "(?<!o)il",
        "turbo",
        "lightning",
        "lcm",
    ),
)
_USES = ("style", "concept", "slider", "pose")
_AT_START = re.compile(r"^(?:sdxl|pdxl|xl|pony|flux|sd|nai)(?=[A-Za-z]{3})", re.IGNORECASE)
_AT_END = (
    re.compile(rf"(?:{'|'.join(_MODELS)}){{1,3}}v?$", re.IGNORECASE),
    re.compile(rf"(?:{'|'.join((*_MODELS, *_USES))}){{1,3}}v?$", re.IGNORECASE),
)
"""Kinds of models alone, because "style" may belong to a word, and with what a LoRA is for."""


def lora_words(name: str) -> str:
    """The words of a LoRA's name, without versions and kinds of models; a comma between readings.

    CamelCase separates words. The words are to be checked beside the name, not in its place.
    """
    plain = _VERSION.sub(" ", name)
    split = [_SEPARATOR.split(starts.sub(" ", plain)) for starts in _WORD_STARTS]
    readings = (_without_kinds(words, ends) for words in split for ends in _AT_END)
    return ", ".join(dict.fromkeys(filter(None, readings)))


def _without_kinds(words: list[str], ends: re.Pattern[str]) -> str:
    return " ".join(rest for word in words if (rest := _AT_START.sub("", ends.sub("", word))))
