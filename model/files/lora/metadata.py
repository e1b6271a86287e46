"""Reads the descriptions that trainers write into LoRA files: origin and trigger words."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import PureWindowsPath

from model.files.safetensors_header import SUFFIX

_MAX_TEXT = 200
_MAX_TRIGGER_WORDS = 10
_BASES = ("ss_sd_model_name", "base_model", "modelspec.base_model")


def read_base(metadata: Mapping[str, str]) -> str | None:
    """The checkpoint's name, without the trainer's folders and the file's suffix."""
    for key in _BASES:
        text = short_line(PureWindowsPath(metadata.get(key, "")).name.removesuffix(SUFFIX))
        if text and text != "None":
            return text
    return None


def read_alias(metadata: Mapping[str, str]) -> str | None:
    """The name that the training gave the file, which A1111 may write in prompts."""
    text = short_line(metadata.get("ss_output_name", ""))
    return text if text not in ("", "None") else None


def read_trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    phrase = short_line(metadata.get("modelspec.trigger_phrase", ""))
    if phrase:
        return (phrase,)
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({str(tag): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return ()
    common = (short_line(tag) for tag, _ in counts.most_common(_MAX_TRIGGER_WORDS))
    return tuple(tag for tag in common if tag)


def short_line(text: str) -> str:
    """Reduce text to one short printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_MAX_TEXT]
