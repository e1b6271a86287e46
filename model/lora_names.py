"""Matches the names of LoRAs as people and other programs write them."""

import unicodedata
from collections.abc import Collection

_SUFFIX = ".safetensors"


def normalized_lora_name(text: str) -> str:
    """A name in one form: compatible characters, slashes, no suffix, lower case."""
    name = unicodedata.normalize("NFKC", text).replace("\\", "/").strip().casefold()
    return name.removesuffix(_SUFFIX).strip()


def match_lora(text: str, names: Collection[str]) -> str | None:
    """The name that `text` means: the same text, or the only name with the same normal form."""
    if text in names:
        return text
    wanted = normalized_lora_name(text)
    alike = [name for name in names if normalized_lora_name(name) == wanted]
    return alike[0] if len(alike) == 1 else None
