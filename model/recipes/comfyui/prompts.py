"""Finds the text behind a conditioning of a ComfyUI graph."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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

_OTHER_TEXTS = {"smZ CLIPTextEncode": "with_SDXL"}
"""Switches of nodes with which other inputs are the texts."""

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


class Conditioning(NamedTuple):
    """The text of a conditioning, whether LoRA tags in it were applied, and its encoder node."""

    text: str
    applies_tags: bool
    encoder: Node | None


def read_conditioning(
    graph: Graph, given: Any, field: str, imported: ImportedRequest
) -> Conditioning:
    """The text of a conditioning.

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
            imported.add_note(
                f"{field}, node {name}", "read as an empty prompt, which is encoded in another way"
            )
            return Conditioning("", False, None)
        if name in _WRAPPERS:
            imported.add_note(f"{field}, node {name}", "ignored; the text before it is used")
            inputs = _WRAPPERS[name]
            given = output.node["inputs"].get(inputs[output.slot % len(inputs)])
            continue
        text = _text(graph, output, field, imported)
        return Conditioning(text, name in _APPLIES_TAGS, output.node)
    raise UnknownLink("is linked to a loop")


def _text(graph: Graph, output: Output, field: str, imported: ImportedRequest) -> str:
    node, slot = output
    names = _TEXT_INPUTS.get((kind(node), slot))
    switch = _OTHER_TEXTS.get(kind(node))
    if names is None or (switch and node["inputs"].get(switch)):
        raise UnknownLink(f"is linked to output {slot} of {kind(node)}, which is not supported")
    texts = [graph.value(node["inputs"].get(name)) for name in names]
    if not isinstance(texts[0], str):
        raise UnknownLink(f"is linked to {kind(node)}, which has no text")
    for other in texts[1:]:
        if other not in (None, "", texts[0]):
            imported.add_note(f"{field} {other}", "left out; another text of the node is used")
    return texts[0]
