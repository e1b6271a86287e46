"""Splits a prompt into its parts, and tells tags from prose."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from model.prompt_grammar import plain_text

_SEPARATOR: Final = re.compile(r"[,\n]")
_SENTENCE_END: Final = re.compile(r"(?<=\w[.!?])(?:\s+|$)")
_PROSE_WORDS: Final = 7
"""A part with at least as many words is prose."""

_REST_WORDS: Final = 3
_OPENING: Final = re.compile(r"(?:an?|the|this|there|she|he|it|they|her|his|their|its)\s")
"""The beginning of a sentence, and of few tags."""


def split_tags(prompt: str) -> list[str]:
    """Split a prompt at commas and line ends into trimmed, lower-case, non-empty parts.

    Removes brackets and weights: `(Red hair:1.2)` becomes `red hair`.
    """
    return [tag for part in _SEPARATOR.split(plain_text(prompt).lower()) if (tag := part.strip())]


def is_prose(part: str) -> bool:
    """Whether a part of a prompt is a sentence, or part of one, rather than a tag."""
    words = len(part.split())
    return words >= _PROSE_WORDS or (words > 2 and _SENTENCE_END.search(part) is not None)


def tags_outside_prose(prompt: str, is_tag: Callable[[str], bool]) -> list[str]:
    """The parts of a prompt that are neither a sentence nor a part of one, each once.

    A sentence has commas too: it ends with its line or its full stop. `is_tag` knows tags that look
    like sentences, such as `the legend of zelda`.
    """
    lines = plain_text(prompt).lower().split("\n")
    return list(dict.fromkeys(tag for line in lines for tag in _tags_of_line(line, is_tag)))


def _tags_of_line(line: str, is_tag: Callable[[str], bool]) -> Iterator[str]:
    in_sentence = False
    for part in map(str.strip, line.split(",")):
        if not part:
            continue
        if in_sentence or (not is_tag(part) and (is_prose(part) or _OPENING.match(part))):
            rest = _SENTENCE_END.split(part)[-1]
            in_sentence = bool(_OPENING.match(rest)) or len(rest.split()) > _REST_WORDS
            in_sentence = in_sentence or rest == part
        else:
            yield part
