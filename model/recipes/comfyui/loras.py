"""Reads the LoRAs out of the nodes of ComfyUI and its extensions that load them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model.recipes.comfyui.graph import Graph, Node, UnknownLink, kind
from model.recipes.imported import ImportedRequest, read_number
from model.recipes.lora_tags import extract_networks

_MAX_STACKS = 50
_NONE = ("", "None", None)

Entry = tuple[Any, Any, Any]
"""Name, weight and weight of the text part, as in the inputs of a node."""


def _single(node: Node) -> Iterator[Entry]:
    inputs = node["inputs"]
    name = inputs.get("lora_name")
    if isinstance(name, dict):  # with a preview, of Custom Scripts
        name = name.get("content")
    if inputs.get("switch") != "Off":
        yield name, inputs.get("strength_model"), inputs.get("strength_clip")


def _model_only(node: Node) -> Iterator[Entry]:
    yield node["inputs"].get("lora_name"), node["inputs"].get("strength_model"), 0


def _efficient_loader(node: Node) -> Iterator[Entry]:
    inputs = node["inputs"]
    yield (
        inputs.get("lora_name"),
        inputs.get("lora_model_strength"),
        inputs.get("lora_clip_strength"),
    )


def _power_loader(node: Node) -> Iterator[Entry]:
    for name, entry in node["inputs"].items():
        if name.lower().startswith("lora_") and isinstance(entry, dict) and entry.get("on"):
            yield entry.get("lora"), entry.get("strength"), entry.get("strengthTwo")


def _rgthree_stack(node: Node) -> Iterator[Entry]:
    for number in ("01", "02", "03", "04"):
        yield node["inputs"].get(f"lora_{number}"), node["inputs"].get(f"strength_{number}"), None


def _comfyroll_stack(node: Node) -> Iterator[Entry]:
    inputs = node["inputs"]
    for number in (1, 2, 3):
        if inputs.get(f"switch_{number}") == "On":
            weights = (inputs.get(f"{part}_weight_{number}") for part in ("model", "clip"))
            yield (inputs.get(f"lora_name_{number}"), *weights)


def _efficient_stack(node: Node) -> Iterator[Entry]:
    inputs = node["inputs"]
    count = inputs.get("lora_count")
    for number in range(1, min(count, 50) + 1) if isinstance(count, int) else ():
        name = inputs.get(f"lora_name_{number}")
        if inputs.get("input_mode") == "simple":
            yield name, inputs.get(f"lora_wt_{number}"), None
        else:
            yield name, inputs.get(f"model_str_{number}"), inputs.get(f"clip_str_{number}")


def _lora_manager(node: Node) -> Iterator[Entry]:
    loras = node["inputs"].get("loras")
    entries = loras.get("__value__") if isinstance(loras, dict) else loras
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("active", True):
            yield entry.get("name"), entry.get("strength"), entry.get("clipStrength")


def _nothing(node: Node) -> Iterator[Entry]:
    yield from ()


LORA_NODES: Mapping[str, Callable[[Node], Iterator[Entry]]] = {
    "LoraLoader": _single,
    "LoraLoaderModelOnly": _model_only,
    "LoraLoader|pysssss": _single,
    "CR Load LoRA": _single,
    "Efficient Loader": _efficient_loader,
    "Power Lora Loader (rgthree)": _power_loader,
    "Lora Loader Stack (rgthree)": _rgthree_stack,
    "CR LoRA Stack": _comfyroll_stack,
    "CR Apply LoRA Stack": _nothing,
    "LoRA Stacker": _efficient_stack,
    "Lora Loader (LoraManager)": _lora_manager,
    "Lora Stacker (LoraManager)": _lora_manager,
    "LoraTagLoader": _nothing,
    "ImpactWildcardEncode": _nothing,
    "Power Prompt (rgthree)": _nothing,
}
"""Nodes that load LoRAs or list them for another node at its `lora_stack`."""

_TAGGED_INPUTS = {
    "LoraTagLoader": "text",
    "ImpactWildcardEncode": "populated_text",
    "Power Prompt (rgthree)": "prompt",
}
"""The text of which a node loads the LoRA tags."""


def import_loras(
    graph: Graph, node: Node, imported: ImportedRequest, *, is_on_text: bool = True
) -> None:
    """Import the LoRAs of a node in LORA_NODES, and of the stacks that it applies.

    `is_on_text` says whether they were also applied to the text encoder.
    """
    seen: list[Node] = []
    while len(seen) < _MAX_STACKS and not any(node is other for other in seen):
        seen.append(node)
        for name, weight, text_weight in LORA_NODES[kind(node)](node):
            _import(graph, imported, (name, weight, text_weight if is_on_text else 0))
        if (tagged := _TAGGED_INPUTS.get(kind(node))) is not None:
            _import_tags(graph, imported, node, tagged)
        stack = node["inputs"].get("lora_stack")
        if stack is None:
            return
        source = graph.node(stack)
        if source is None or kind(source) not in LORA_NODES:
            imported.add_note("loras", f"left out; the stack of {kind(source)} is not supported")
            return
        node = source
    imported.add_note("loras", "the stacks of LoRAs form a loop")


def _import_tags(graph: Graph, imported: ImportedRequest, node: Node, name: str) -> None:
    try:
        extract_networks(imported, str(graph.value(node["inputs"].get(name))))
    except UnknownLink as exc:
        imported.add_note("loras", f"left out; the text of {kind(node)} {exc}")


def loads_loras(graph: Graph, node: Node) -> bool:
    """Whether a node of LORA_NODES loads a LoRA, or may load one."""
    tagged = _TAGGED_INPUTS.get(kind(node), "")
    try:
        text = str(graph.value(node["inputs"].get(tagged, "")))
    except UnknownLink:
        return True
    return "<" in text if tagged else True


def _import(graph: Graph, imported: ImportedRequest, entry: Entry) -> None:
    """Import a LoRA by its file name without the extension."""
    try:
        file, *weights = (graph.value(part) for part in entry)
    except UnknownLink as exc:
        imported.add_note("loras", f"a LoRA is left out; its name or strength {exc}")
        return
    if file in _NONE:
        return
    weight, text_weight = (read_number(value, float) for value in weights)
    if weight is None:
        imported.add_note(f"LoRA {file}", "left out because its strength is not a number")
        return
    if weights[1] is not None and text_weight != weight:
        imported.add_note(
            f"LoRA {file}", f"a text part of it is applied with {weight:g}, not {weights[1]}"
        )
    if weight:
        imported.add_lora(str(file).replace("\\", "/").removesuffix(".safetensors"), weight)
