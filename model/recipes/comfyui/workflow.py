"""Reads the node graph that ComfyUI writes into image files as a request.

Starts at the first sampler and follows its inputs. What cannot be followed becomes a note that
names the field.
"""

import json
from typing import Any

from model.recipes.comfyui.graph import Graph, Node, Output, UnknownLink, kind
from model.recipes.comfyui.loras import LORA_NODES, import_loras
from model.recipes.comfyui.nodes import labelled_size, latent_output
from model.recipes.comfyui.prompts import read_conditioning
from model.recipes.imported import ImportedRequest
from model.recipes.lora_tags import import_prompts

MAX_GRAPH_CHARS = 5_000_000
_MAX_HOPS = 200
_MAX_NOTES = 40
_SHIFT = 3.0

_SAMPLERS = frozenset(
    {
        *("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"),
        *("KSampler (Efficient)", "KSampler Adv. (Efficient)"),
    }
)
_DECODERS = frozenset({"VAEDecode", "VAEDecodeTiled"})
_OUTPUT_NAMES = ("save", "preview", "show", "display", "compare", "send")
_SIZE_INPUTS = frozenset({"width", "height", "batch_size", "length"})
_SHIFT_NODES = frozenset({"ModelSamplingSD3", "ModelSamplingAuraFlow"})
_IMAGE_LATENTS = frozenset({"VAEEncode", "VAEEncodeTiled", "VAEEncodeForInpaint", "LoadLatent"})


def is_graph(data: dict[str, Any]) -> bool:
    """Whether an object is a graph in ComfyUI's API format: nodes by id."""
    return any(isinstance(node, dict) and "class_type" in node for node in data.values())


def read_workflow(text: str) -> ImportedRequest:
    """Read a graph as a request; `text` is its JSON in ComfyUI's API format.

    Raises:
        ValueError: it is too long, not valid JSON, or as `read_graph`.
    """
    if len(text) > MAX_GRAPH_CHARS:
        raise ValueError(f"the workflow has {len(text)} characters; at most {MAX_GRAPH_CHARS}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError("the workflow cannot be read: not valid JSON") from exc
    return read_graph(found if isinstance(found, dict) else {})


def read_graph(nodes: dict[str, Any]) -> ImportedRequest:
    """Read a graph, nodes by id, as a request. The prompt may be missing.

    Raises:
        ValueError: it has no known sampler, or several that do not follow each other.
    """
    graph = Graph(nodes)
    imported = ImportedRequest()
    sampler = _first_sampler(graph, imported)
    _import_sampling(graph, sampler, imported)
    _import_prompts(graph, sampler, imported)
    _import_latents(graph, sampler, imported)
    _import_model(graph, sampler, imported)
    imported.note_missing()
    return imported


def _first_sampler(graph: Graph, imported: ImportedRequest) -> Node:
    """The sampler of the first pass; adds notes about everything that runs after it."""
    samplers = [name for name, node in graph.nodes.items() if kind(node) in _SAMPLERS]
    later = graph.after(samplers)
    firsts = [name for name in samplers if name not in later]
    if not firsts:
        raise ValueError("the workflow has no sampler that is supported")
    used = [name for name in firsts if name in graph.users] or firsts
    if len(used) > 1:
        raise ValueError(
            f"the workflow has {len(used)} samplers that do not follow each other, and it does not "
            "say which of them made the image"
        )
    after = graph.after(used)
    passes = sum(name in after for name in samplers)
    if passes:
        imported.add_note(f"{passes + 1} samplers", "only the first pass is imported")
    _note_later_nodes(graph, after, imported)
    return graph.nodes[used[0]]


def _note_later_nodes(graph: Graph, names: set[str], imported: ImportedRequest) -> None:
    """Note upscalers and everything else that changes the image after the first pass."""
    kinds = {kind(graph.nodes[name]) for name in names} - _SAMPLERS - _DECODERS
    changing = [
        name for name in sorted(kinds) if not any(part in name.lower() for part in _OUTPUT_NAMES)
    ]
    for name in changing[:_MAX_NOTES]:
        imported.add_note(f"node {name}", "left out; it runs after the first pass")


def _read(graph: Graph, imported: ImportedRequest, field: str, node: Node, *inputs: str) -> Any:
    """The value of the first of these inputs that the node has; notes links that are unknown."""
    for name in inputs:
        if name in node["inputs"]:
            try:
                return graph.value(node["inputs"][name])
            except UnknownLink as exc:
                imported.add_note(f"{field}", f"{name} of {kind(node)} {exc}; the default is used")
                return None
    return None


def _import_sampling(graph: Graph, sampler: Node, imported: ImportedRequest) -> None:
    """Import seed, steps, guidance, sampler and schedule, from inputs or separate nodes."""
    noise, guider, sigmas, solver = (
        graph.node(sampler["inputs"].get(name)) for name in ("noise", "guider", "sigmas", "sampler")
    )
    for field, node, inputs, number in (
        ("seed", noise, ("seed", "noise_seed"), int),
        ("steps", sigmas, ("steps",), int),
        ("cfg_scale", guider, ("cfg",), float),
    ):
        value = _read(graph, imported, field, node or sampler, *inputs)
        if value is not None:
            imported.set_number(field, value, source=field, kind=number)
    if kind(guider) == "BasicGuider":
        imported.fields["cfg_scale"] = 1.0
    elif guider is not None and kind(guider) != "CFGGuider":
        imported.add_note(f"node {kind(guider)}", "its guidance is not supported")
    if noise is not None and kind(noise) != "RandomNoise":
        imported.fields.pop("seed", None)
        imported.add_note(f"seed, node {kind(noise)}", "not supported; a new seed is drawn")
    name = _read(graph, imported, "sampler", solver or sampler, "sampler_name")
    if isinstance(name, str):
        imported.set_sampler(name)
    elif solver is not None:
        imported.set_sampler(kind(solver).removeprefix("Sampler"))
        imported.add_note(f"options of {kind(solver)}", "the sampler's defaults are used")
    name = _read(graph, imported, "scheduler", sigmas or sampler, "scheduler")
    if isinstance(name, str):
        imported.set_schedule(name)
    elif sigmas is not None:
        imported.set_schedule(kind(sigmas).removesuffix("Scheduler"))
        imported.add_note(f"options of {kind(sigmas)}", "the schedule's defaults are used")
    _note_partial_sampling(graph, sampler, sigmas, imported)


def _note_partial_sampling(
    graph: Graph, sampler: Node, sigmas: Node | None, imported: ImportedRequest
) -> None:
    denoise = _read(graph, imported, "denoise", sigmas or sampler, "denoise")
    if denoise not in (None, 1):
        imported.add_note(
            f"denoise {denoise}",
            "made from another image, which is not in the file",
        )
    if script := graph.node(sampler["inputs"].get("script")):
        imported.add_note(f"node {kind(script)}", "left out; it changes what the sampler does")
    start = _read(graph, imported, "start_at_step", sampler, "start_at_step")
    end = _read(graph, imported, "end_at_step", sampler, "end_at_step")
    steps = imported.fields.get("steps", 0)
    if start not in (None, 0) or (isinstance(end, int) and end < steps):
        imported.add_note(f"steps {start} to {end}", "all steps are run")
    if _read(graph, imported, "add_noise", sampler, "add_noise") in ("disable", False):
        imported.add_note("add_noise", "the sampler started without noise; here it has noise")


def _import_prompts(graph: Graph, sampler: Node, imported: ImportedRequest) -> None:
    source = graph.node(sampler["inputs"].get("guider")) or sampler
    for name, inputs in (
        ("prompt", ("positive", "conditioning")),
        ("negative_prompt", ("negative",)),
    ):
        given = next((source["inputs"][key] for key in inputs if key in source["inputs"]), None)
        if given is None:
            if name == "prompt":
                imported.add_note("prompt", "no text is connected to the sampler")
            elif kind(source) == "BasicGuider":
                imported.add_note(name, "there is none; the guidance is 1")
            continue
        try:
            text, applies_tags = read_conditioning(graph, given, name, imported)
        except UnknownLink as exc:
            imported.add_note(name, f"it {exc}")
            continue
        texts = (text, None) if name == "prompt" else (None, text)
        import_prompts(imported, *texts, applies_tags=applies_tags)


def _import_latents(graph: Graph, sampler: Node, imported: ImportedRequest) -> None:
    """Import the size of empty latents."""
    latents = graph.output(sampler["inputs"].get("latent_image"))
    if latents is None:
        return
    node, name = latents.node, kind(latents.node)
    size = _size(graph, latents, imported)
    if size is not None:
        imported.set_size(*size)
    elif name in _IMAGE_LATENTS:
        imported.add_note(
            f"resolution, node {name}", "latents of another image, which is not in the file"
        )
    elif not any(note.startswith("resolution") for note in imported.notes):
        imported.add_note(f"resolution, node {name}", "not supported; the default is used")
    count = _read(graph, imported, "batch_size", node, "batch_size")
    if isinstance(count, int) and count > 1:
        imported.add_note(
            f"batch of {count}", "only one image is made; the others had different noise"
        )


def _size(graph: Graph, latents: Output, imported: ImportedRequest) -> tuple[Any, Any] | None:
    """The size of latents without content; None if they are something else or unknown."""
    node, name = latents.node, kind(latents.node)

    def get(key: str) -> Any:
        return graph.value(node["inputs"].get(key, ""))

    try:
        labelled = labelled_size(name, get)
    except UnknownLink as exc:
        imported.add_note("resolution", f"{name} {exc}; the default is used")
        return None
    if labelled is not None:
        return labelled if latents.slot == latent_output(name) else None
    sides = ("width", "height")
    if name == "Efficient Loader" and latents.slot == 3:
        sides = ("empty_latent_width", "empty_latent_height")
    elif not name.startswith("Empty") or latents.slot != 0 or set(node["inputs"]) - _SIZE_INPUTS:
        return None  # another input may change the size
    width, height = (_read(graph, imported, "resolution", node, side) for side in sides)
    return None if width is None or height is None else (width, height)


def _import_model(graph: Graph, sampler: Node, imported: ImportedRequest) -> None:
    """Import the name of the checkpoint and the LoRAs; notes nodes that modify the model."""
    parts = (graph.node(sampler["inputs"].get(key)) for key in ("guider", "sigmas"))
    sources = [sampler, *filter(None, parts)]
    given = next((node["inputs"]["model"] for node in sources if "model" in node["inputs"]), None)
    loaders: list[Node] = []
    for _ in range(_MAX_HOPS):
        node = graph.node(given)
        if node is None:
            break
        if kind(node) in LORA_NODES:
            loaders.append(node)
        elif kind(node) in _SHIFT_NODES:
            shift = _read(graph, imported, "shift", node, "shift")
            if shift not in (None, _SHIFT):
                imported.add_note(f"shift {shift}", f"the shift is {_SHIFT:g} here")
        elif "model" in node["inputs"]:
            label = "loras, node" if "lora" in kind(node).lower() else "node"
            imported.add_note(f"{label} {kind(node)}", "left out; it changes the model")
        name = node["inputs"].get("unet_name") or node["inputs"].get("ckpt_name")
        if isinstance(name, str):
            imported.model = name
            break
        if "model" not in node["inputs"] and "opt_model" not in node["inputs"]:
            imported.add_note(f"model and loras, node {kind(node)}", "not supported")
            break
        given = node["inputs"].get("model", node["inputs"].get("opt_model"))
    for node in reversed(loaders):  # the LoRA next to the checkpoint is applied first
        import_loras(graph, node, imported)
