"""Reads the LoRA tags of other web UIs, such as `<lora:name:0.8>`, out of prompts."""

import re
from itertools import islice

from model.recipes.imported import ImportedRequest, plain_text, read_number

# All patterns take linear time: a tag has no second bracket.
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
_OTHER_TAG = re.compile(r"<\w+:[^<>]+>")
_TAG_START = re.compile(r"<(?=\w+:)")
MAX_TEXT_CHARS = 200_000
_MAX_SHOWN_TAGS = 40


def extract_networks(imported: ImportedRequest, prompt: str, *, is_used: bool = True) -> str:
    """Remove networks such as `<lora:name:weight>` from a prompt; they become fields or notes."""

    def replace(match: re.Match[str]) -> str:
        kind, name, arguments = match.groups()
        if not kind.islower():
            imported.add_note(match[0], "left out; the name of the tag is in small letters")
            return ""
        if kind == "hypernet" or not is_used:
            imported.add_note(match[0], "left out; it had no effect" if not is_used else "left out")
            return ""
        first, *others = arguments.split(":")[1:] or ["1"]
        weight = read_number(first, float)
        if weight is None:
            imported.add_note(match[0], "left out because its weight is not a number")
            return ""
        if others:
            imported.add_note(match[0], "only the first number is used, as the weight of all parts")
        imported.add_lora(name, weight)
        return ""

    without = _NETWORK.sub(replace, prompt)
    for tag in islice(_OTHER_TAG.finditer(without), _MAX_SHOWN_TAGS):
        imported.add_note(tag[0], "not supported; it is plain text here")
    return prompt if without == prompt else without.strip()


def without_networks(prompt: str) -> str:
    """A prompt without the networks that `extract_networks` finds."""
    return extract_networks(ImportedRequest(), prompt)


def break_tags(text: str) -> str:
    """Write tags, `<word:…>`, so that no web UI reads them: with a blank after the bracket."""
    return _TAG_START.sub("< ", text)


def import_prompts(
    imported: ImportedRequest,
    prompt: object,
    negative: object,
    *,
    applies_tags: bool = True,
) -> None:
    """Import the two prompts of another program; texts only, without blanks around them.

    `applies_tags` says whether the program took LoRA tags in its prompts for LoRAs. If it did not,
    the tags are left out with a note.
    """
    for name, text in (("prompt", prompt), ("negative_prompt", negative)):
        if isinstance(text, str) and len(text) > MAX_TEXT_CHARS:
            imported.add_note(name, f"left out; it has more than {MAX_TEXT_CHARS} characters")
        elif isinstance(text, str):
            is_used = applies_tags and name == "prompt"
            imported.fields[name] = extract_networks(
                imported, plain_text(text).strip(), is_used=is_used
            )
        elif text is not None:
            imported.add_note(f"{name} {text}", "not a text")
