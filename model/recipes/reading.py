"""Finds out which program wrote a text and reads it as a request."""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from model.recipes.comfyui.workflow import MAX_GRAPH_CHARS, is_graph, read_graph, read_workflow
from model.recipes.imported import ImportedRequest, plain_text
from model.recipes.infotext import read_infotext
from model.recipes.json_text import load_json
from model.recipes.other_programs import (
    read_draw_things,
    read_fooocus,
    read_invokeai,
    read_novelai,
    read_swarmui,
)

Writer = Literal[
    "kirazuri",
    "infotext",
    "comfyui",
    "swarmui",
    "invokeai",
    "novelai",
    "fooocus",
    "drawthings",
]


class FoundRecipe(NamedTuple):
    """A request, and the format and the text that it was read from."""

    kind: Writer
    imported: ImportedRequest
    text: str


_HTML_ESCAPE = re.compile(r"&(?:lt|gt|amp|quot|apos|#\d{2,6}|#x[0-9a-fA-F]{2,6});")


def read_text(text: str) -> FoundRecipe:
    """Read the text of another program, or an infotext of this service.

    Raises:
        ValueError: the text is too long, of an unknown program, or has no prompt.
    """
    return _with_prompt(read_settings(text))


def read_comfyui(text: str) -> FoundRecipe:
    """Read a graph of ComfyUI.

    Raises:
        ValueError: as `read_workflow`, or it has no prompt.
    """
    return _with_prompt(FoundRecipe("comfyui", read_workflow(text), text))


def _with_prompt(found: FoundRecipe) -> FoundRecipe:
    if not found.imported.fields.get("prompt"):
        what = "workflow" if found.kind == "comfyui" else "text"
        reasons = [note for note in found.imported.notes if note.startswith("prompt")]
        raise ValueError("; ".join([f"the {what} has no prompt that can be read", *reasons[:3]]))
    for name in ("prompt", "negative_prompt"):
        if escape := _HTML_ESCAPE.search(found.imported.fields.get(name) or ""):
            found.imported.add_note(f"{name} {escape[0]}", "an escape of HTML, read as it stands")
    return found


def read_settings(text: str) -> FoundRecipe:
    """Read a text as `read_text`, even if it has no prompt."""
    if len(text) > MAX_GRAPH_CHARS:
        raise ValueError(f"the text has {len(text)} characters; at most {MAX_GRAPH_CHARS}")
    plain = plain_text(text).strip()
    if plain[:7].lower() == "prompt:":
        plain = plain[7:].strip()
    data = _json(plain) if plain[:1] in ("{", "[") else None
    if isinstance(data, dict) and {"nodes", "links"} <= data.keys():
        raise ValueError("the workflow is in the format of ComfyUI's editor, which is not read")
    if data is None:
        return FoundRecipe("infotext", read_infotext(text), text)
    values = data if isinstance(data, dict) else {}
    try:
        if (graph := _graph(values)) is not None:
            return FoundRecipe("comfyui", read_graph(graph), text)
        for kind, is_of_writer, read in _WRITERS:
            if is_of_writer(values):
                return FoundRecipe(kind, read(values), text)
    except RecursionError as exc:
        raise ValueError("the text nests too deeply") from exc
    raise ValueError("the text is JSON of a program that is not supported")


def _json(text: str) -> Any:
    """The parsed text; None if it is not JSON."""
    try:
        return load_json(text)
    except ValueError:
        return None


def _graph(data: dict[str, Any]) -> dict[str, Any] | None:
    """The ComfyUI graph in an object: itself, or its `prompt`, which may be a text."""
    inside = data.get("prompt")
    if isinstance(inside, str) and inside.lstrip()[:1] == "{":
        inside = _json(inside)
    for graph in (data, inside):
        if isinstance(graph, dict) and is_graph(graph):
            return graph
    return None


def _is_novelai(data: dict[str, Any]) -> bool:
    is_named = str(data.get("Software", "")).startswith("NovelAI")
    return is_named or {"uc", "scale", "sampler", "steps"} <= data.keys()


def _is_fooocus(data: dict[str, Any]) -> bool:
    return "prompt" in data and bool({"base_model", "metadata_scheme", "performance"} & data.keys())


_WRITERS: tuple[
    tuple[Writer, Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], ImportedRequest]],
    ...,
] = (
    ("swarmui", lambda data: "sui_image_params" in data, read_swarmui),
    (
        "invokeai",
        lambda data: bool({"positive_prompt", "generation_mode"} & data.keys()),
        read_invokeai,
    ),
    ("drawthings", lambda data: {"c", "scale"} <= data.keys(), read_draw_things),
    ("novelai", _is_novelai, read_novelai),
    ("fooocus", _is_fooocus, read_fooocus),
)
"""The writers of JSON other than ComfyUI, with the values by which their objects are known."""
