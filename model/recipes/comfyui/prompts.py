"""Finds the text behind a conditioning of a ComfyUI graph."""

from collections.abc import Mapping
from typing import Any

from model.recipes.comfyui.graph import Graph, Node, Output, UnknownLink, kind
from model.recipes.imported import ImportedRequest

_MAX_HOPS = 200

_TEXT_INPUTS: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("CLIPTextEncode", 0): ("text",),
    ("BNK_CLIPTextEncodeAdvanced", 0): ("text",),
    ("smZ CLIPTextEncode", 0): ("text",),
    ("CLIPTextEncodeSDXL", 0): ("text_g", "text_l"),
    ("CLIPTextEncodeFlux", 0): ("t5xxl", "clip_l"),
    ("ImpactWildcardEncode", 2): ("populated_text",),
    ("Power Prompt (rgthree)", 0): ("prompt",),
    ("Power Prompt - Simple (rgthree)", 0): ("prompt",),
    ("Efficient Loader", 1): ("positive",),
    ("Efficient Loader", 2): ("negative",),
}
"""The texts of an output of a node; the first counts."""

_APPLIES_TAGS = frozenset({"ImpactWildcardEncode", "Power Prompt (rgthree)"})
"""Nodes that load the LoRAs of tags in their text."""

_WRAPPERS: Mapping[str, tuple[str, ...]] = {
    "ConditioningCombine": ("conditioning_1",),
    "ConditioningConcat": ("conditioning_to",),
    "ConditioningAverage": ("conditioning_to",),
    "Conditioning Concat Optional (Image Saver)": ("conditioning_to",),
    "ConditioningSetArea": ("conditioning",),
    "ConditioningSetAreaPercentage": ("conditioning",),
    "ConditioningSetAreaStrength": ("conditioning",),
    "ConditioningSetMask": ("conditioning",),
    "ConditioningSetTimestepRange": ("conditioning",),
    "ControlNetApply": ("conditioning",),
    "ControlNetApplyAdvanced": ("positive", "negative"),
    "ControlNetApplySD3": ("positive", "negative"),
    "FluxGuidance": ("conditioning",),
    "InpaintModelConditioning": ("positive", "negative"),
    "ReferenceLatent": ("conditioning",),
    "unCLIPConditioning": ("conditioning",),
}
"""Nodes that change a conditioning: the input that each output comes from."""


def read_conditioning(
    graph: Graph, given: Any, field: str, imported: ImportedRequest
) -> tuple[str, bool]:
    """The text of a conditioning, and whether LoRA tags in it were applied.

    Adds notes, under the name of `field`, about every node that changes the conditioning.

    Raises:
        UnknownLink: it comes from a node that is not known.
    """
    for _ in range(_MAX_HOPS):
        output = graph.output(given)
        if output is None:
            raise UnknownLink("is not connected to a node that is in the workflow")
        name = kind(output.node)
        if name == "ConditioningZeroOut":
            return "", False
        if name in _WRAPPERS:
            imported.add_note(f"{field}, node {name}", "ignored; the text before it is used")
            inputs = _WRAPPERS[name]
            given = output.node["inputs"].get(inputs[output.slot % len(inputs)])
            continue
        return _text(graph, output, field, imported), name in _APPLIES_TAGS
    raise UnknownLink("is linked to a loop")


def _text(graph: Graph, output: Output, field: str, imported: ImportedRequest) -> str:
    node, slot = output
    names = _TEXT_INPUTS.get((kind(node), slot)) or _only_text(graph, node)
    if names is None:
        raise UnknownLink(f"is linked to output {slot} of {kind(node)}, which is not supported")
    texts = [graph.value(node["inputs"].get(name)) for name in names]
    if not isinstance(texts[0], str):
        raise UnknownLink(f"is linked to {kind(node)}, which has no text")
    for other in texts[1:]:
        if other not in (None, "", texts[0]):
            imported.add_note(f"{field} {other}", "left out; another text of the node is used")
    return texts[0]


def _only_text(graph: Graph, node: Node) -> tuple[str, ...] | None:
    """The input of an unknown encoder that has one text and nothing else but a text encoder."""
    others = [name for name in node["inputs"] if name not in ("clip", "text_encoder")]
    is_encoder = len(others) < len(node["inputs"])
    is_text = len(others) == 1 and isinstance(node["inputs"][others[0]], str | list)
    return (others[0],) if is_encoder and is_text else None
