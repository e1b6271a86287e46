"""Splits names of LoRA files into words: `TeenNude_XLv2.1` becomes `Teen Nude`."""

import re

_VERSION = re.compile(r"[vV]\d[\d.]*[a-z]?(?![A-Za-z])")
_WORD_START = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])"
)
_SEPARATOR = re.compile(r"[\W_]+")
_KINDS = (
    *("illustrious", "anima", "pony", "pdxl", "sdxl", "xl", "noob", "flux", "qwen"),
    *("lora", "lokr", "loha", "locon", "dora", "lyco", "style", "concept", "slider", "pose"),
)
_ENDINGS = re.compile(rf"(?:{'|'.join(_KINDS)}){{1,3}}v?$", re.IGNORECASE)


def lora_words(name: str) -> str:
    """The words of a LoRA's name, without versions and without kinds of models at their ends.

    CamelCase separates words. The words are to be checked beside the name, not in its place.
    """
    spaced = _WORD_START.sub(" ", _VERSION.sub(" ", name))
    return " ".join(word for part in _SEPARATOR.split(spaced) if (word := _ENDINGS.sub("", part)))
