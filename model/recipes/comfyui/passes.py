"""Finds the sampler that a saved image of a ComfyUI graph starts from, and what follows it."""

from typing import NamedTuple

from model.recipes.comfyui.graph import Graph, Node, kind
from model.recipes.imported import ImportedRequest

_MAX_NOTES = 40
_SAMPLERS = frozenset(
    {
        *("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"),
        *("KSampler (Efficient)", "KSampler Adv. (Efficient)"),
    }
)
_DECODERS = frozenset({"VAEDecode", "VAEDecodeTiled"})
_SAVERS = ("save",)
_VIEWERS = ("preview", "show", "display", "compare", "send")
_IMAGE_INPUTS = ("images", "image", "samples")


class FirstPass(NamedTuple):
    """The sampler of the first pass, and the nodes that decode its image or that of a later one."""

    sampler: Node
    decoders: list[Node]


def find_first_pass(graph: Graph, imported: ImportedRequest) -> FirstPass:
    """The first pass of the saved image; adds notes about everything that runs after it.

    Raises:
        ValueError: no known sampler leads to an image that is saved, or several do that do not
            follow each other.
    """
    samplers = [name for name, node in graph.nodes.items() if kind(node) in _SAMPLERS]
    if not samplers:
        raise ValueError("the workflow has no sampler that is supported")
    outputs = _image_outputs(graph, _SAVERS) or _image_outputs(graph, _VIEWERS)
    sampled = graph.after(samplers).union(samplers)
    if not all(name in sampled for name in outputs):
        raise ValueError("an image of the workflow has no sampler that is supported")
    leading = graph.before(outputs) if outputs else set(graph.nodes)
    samplers = [name for name in samplers if name in leading]
    later = graph.after(samplers)
    firsts = [name for name in samplers if name not in later]
    if not firsts:
        raise ValueError("the workflow has no sampler that starts from noise")
    used = [name for name in firsts if name in graph.users] or firsts
    if len(used) > 1:
        raise ValueError(
            f"the workflow has {len(used)} samplers that do not follow each other, and it does not "
            "say which of them made the image"
        )
    after = graph.after(used) & leading
    passes = sum(name in after for name in samplers)
    if passes:
        imported.add_note(f"{passes + 1} samplers", "only the first pass is imported")
    _note_later_nodes(graph, after, imported)
    sampler = graph.visited[used[0]] = graph.nodes[used[0]]
    decoders = [graph.nodes[name] for name in after if kind(graph.nodes[name]) in _DECODERS]
    return FirstPass(sampler, decoders)


def _image_outputs(graph: Graph, kinds: tuple[str, ...]) -> list[str]:
    """Ids of the nodes that save or show an image, by parts of their type."""
    return [
        name
        for name, node in graph.nodes.items()
        if _is_kind(node, kinds)
        and any(isinstance(node["inputs"].get(key), list) for key in _IMAGE_INPUTS)
    ]


def _is_kind(node: Node, kinds: tuple[str, ...]) -> bool:
    return any(part in kind(node).lower() for part in kinds)


def _note_later_nodes(graph: Graph, names: set[str], imported: ImportedRequest) -> None:
    """Note upscalers and everything else that changes the image after the first pass."""
    changing = {
        kind(graph.nodes[name])
        for name in names
        if name in graph.users or not _is_kind(graph.nodes[name], _SAVERS + _VIEWERS)
    }
    for name in sorted(changing - _SAMPLERS - _DECODERS)[:_MAX_NOTES]:
        imported.add_note(f"node {name}", "left out; it runs after the first pass")
