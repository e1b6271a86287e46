"""Follows a ComfyUI graph from a prompt to its text encoder."""

from model.recipes.comfyui.graph import Graph, Node, kind
from model.recipes.comfyui.loras import LORA_NODES
from model.recipes.comfyui.widgets import is_known
from model.recipes.imported import ImportedRequest

_MAX_HOPS = 200


def text_encoder_nodes(graph: Graph, encoder: Node) -> list[Node] | None:
    """The nodes between a prompt and the loader of its text encoder, both included.

    None if the graph does not say where the text encoder comes from.
    """
    nodes = [encoder]
    for _ in range(_MAX_HOPS):
        inputs = nodes[-1]["inputs"]
        given = inputs.get("clip", inputs.get("opt_clip"))
        if given is None:
            return nodes
        source = graph.node(given)
        if source is None:
            return None
        nodes.append(source)
    return None


def note_text_encoder(
    graph: Graph, encoders: list[Node], model_nodes: list[Node], imported: ImportedRequest
) -> None:
    """Note everything that changes the text encoder of these prompts, apart from `model_nodes`.

    Those are the nodes that the model of the sampler comes from.
    """
    noted = {id(node) for node in (*encoders, *model_nodes)}
    for encoder in encoders:
        nodes = text_encoder_nodes(graph, encoder)
        if nodes is None:
            continue
        for node in nodes:
            if id(node) in noted:
                continue
            noted.add(id(node))
            if kind(node) in LORA_NODES:
                _note_loras(node, imported)
            elif not is_known(kind(node)):
                imported.add_note(f"text encoder, node {kind(node)}", "not supported")


def _note_loras(node: Node, imported: ImportedRequest) -> None:
    names = [str(name) for name, *_ in LORA_NODES[kind(node)](node) if name not in ("", "None")]
    label = f"LoRA {', '.join(names)}" if names else f"loras, node {kind(node)}"
    imported.add_note(label, "left out; only the text encoder had it")
