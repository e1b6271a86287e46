"""Follows a ComfyUI graph from a prompt to its text encoder, and from an image to its VAE."""

import re
from collections.abc import Sequence

from model.recipes.comfyui.graph import Graph, Node, UnknownLink, kind
from model.recipes.comfyui.loras import LORA_NODES, loads_loras
from model.recipes.comfyui.widgets import is_known
from model.recipes.imported import ImportedRequest

_MAX_HOPS = 200

_ENCODER_LOADERS = ("CLIPLoader", "CLIPLoaderGGUF")
_ENCODER = re.compile(r"qwen[_-]?3[_.-]?0[._]?6b", re.IGNORECASE)
_VAE = re.compile(r"qwen[_-]?image[_-]?vae", re.IGNORECASE)
"""Names of the files that belong to these checkpoints."""


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
    models = {id(node) for node in model_nodes}
    noted = {*models, *map(id, encoders)}
    for encoder in encoders:
        if (
            kind(encoder) in LORA_NODES
            and id(encoder) not in models
            and loads_loras(graph, encoder)
        ):
            _note_loras(encoder, imported)
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
            elif kind(node) in _ENCODER_LOADERS:
                _note_file(graph, node, "clip_name", _ENCODER, imported)
            elif "Loader" in kind(node):
                imported.add_note(
                    f"text encoder, node {kind(node)}", "that of the checkpoint is used"
                )


def _note_loras(node: Node, imported: ImportedRequest) -> None:
    names = [str(name) for name, *_ in LORA_NODES[kind(node)](node) if name not in ("", "None")]
    label = f"LoRA {', '.join(names)}" if names else f"loras, node {kind(node)}"
    imported.add_note(label, "left out; only the text encoder had it")


def note_vae(
    graph: Graph, users: Sequence[Node], model_nodes: list[Node], imported: ImportedRequest
) -> None:
    """Note a VAE that is not that of the checkpoint, which the last of `model_nodes` loads."""
    noted = set(map(id, model_nodes))
    for user in users:
        for name in ("vae", "optional_vae"):
            source = graph.node(user["inputs"].get(name))
            if source is None or id(source) in noted:
                continue
            noted.add(id(source))
            if kind(source) == "VAELoader":
                _note_file(graph, source, "vae_name", _VAE, imported)
            else:
                imported.add_note(f"VAE, node {kind(source)}", "that of the checkpoint is used")


def _note_file(
    graph: Graph, node: Node, name: str, known: re.Pattern[str], imported: ImportedRequest
) -> None:
    """Note the file of a loader unless its name is that of the checkpoint's own file."""
    what = "VAE" if name == "vae_name" else "text encoder"
    try:
        file = str(graph.value(node["inputs"].get(name)))
    except UnknownLink as exc:
        file = f"node {kind(node)}, {name} {exc}"
    if not known.search(file):
        imported.add_note(f"{what} {file}", "that of the checkpoint is used")
