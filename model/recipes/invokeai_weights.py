"""Notes the weights in prompts of InvokeAI, which are text here."""

import re
from itertools import islice
from typing import Any

from model.recipes.imported import ImportedRequest

_MAX_NOTES = 40
_MAX_WORD_CHARS = 41

# Takes linear time: it begins at the signs, and the word before them is cut out afterwards.
_WEIGHT = re.compile(r"(?<=[^\s,+-])[+-]{1,9}(?=[\s,)]|$)|\.(?:blend|and|swap)\(|\(")
_WORD_END = re.compile(r"[^\s,]*\Z")


def note_weights(imported: ImportedRequest, field: str, text: Any) -> None:
    """Note weights in InvokeAI's own syntax, such as `cat++`, in the text of a field."""
    text = text if isinstance(text, str) else ""
    found = islice(_WEIGHT.finditer(text), _MAX_NOTES)
    for piece in dict.fromkeys(_weighted_word(text, match) for match in found):
        why = "brackets" if piece == "(" else repr(piece)
        imported.add_note(field, f"{why} as a weight of InvokeAI: not converted")


def _weighted_word(text: str, match: re.Match[str]) -> str:
    """What a weight belongs to, such as `cat++`, or the sign that begins it."""
    if match[0][0] not in "+-":
        return match[0]
    before = _WORD_END.search(text[max(0, match.start() - _MAX_WORD_CHARS) : match.start()])
    return (before[0] if before else "") + match[0]
