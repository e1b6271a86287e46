"""Reads the node graph that ComfyUI writes into image files as a request.

Starts at the first sampler and follows its inputs. What cannot be followed becomes a note that
names the field.
"""

from typing import Any

from model.recipes.comfyui.graph import Graph, Node, Output, UnknownLink, kind
from model.recipes.comfyui.loras import LORA_NODES, import_loras, loads_loras
from model.recipes.comfyui.nodes import labelled_size, latent_output
from model.recipes.comfyui.passes import find_first_pass
from model.recipes.comfyui.prompts import read_conditioning
from model.recipes.comfyui.text_encoder import note_text_encoder, note_vae, text_encoder_nodes
from model.recipes.comfyui.widgets import unread_inputs
from model.recipes.imported import ImportedRequest
from model.recipes.json_text import load_json
from model.recipes.lora_tags import import_prompts, without_networks

MAX_GRAPH_CHARS = 5_000_000
_MAX_HOPS = 200
_MAX_NOTES = 40
_SHIFT = 3.0

_EMPTY_LATENTS = frozenset(
    {
        *("EmptyLatentImage", "EmptySD3LatentImage", "EmptyFlux2LatentImage"),
        *("EmptyHunyuanImageLatent", "EmptyHunyuanLatentVideo", "EmptyCosmosLatentVideo"),
    }
)
_GUIDERS = frozenset({"CFGGuider", "BasicGuider"})
_SCHEDULES_WITH_STEPS = frozenset(
    f"{name}Scheduler"
    for name in ("Basic", "Karras", "Exponential", "Polyexponential", "SDTurbo", "VP", "Laplace",
                 "BetaSampling", "AlignYourSteps", "GITS", "OptimalSteps", "LTXV")
)  # fmt: skip
_MODEL_NAMES = {
    "UNETLoader": "unet_name",
    "UnetLoaderGGUF": "unet_name",
    "UNet loader with Name (Image Saver)": "unet_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "CheckpointLoader|pysssss": "ckpt_name",
    "Checkpoint Loader Simple (Image Saver)": "ckpt_name",
    "Checkpoint Loader with Name (Image Saver)": "ckpt_name",
    "Efficient Loader": "ckpt_name",
}
"""Nodes that load a model, and the input that names its file."""

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
        found = load_json(text)
    except ValueError as exc:
        raise ValueError(f"the workflow cannot be read: {exc}") from exc
    return read_graph(found if isinstance(found, dict) else {})


def read_graph(nodes: dict[str, Any]) -> ImportedRequest:
    """Read a graph, nodes by id, as a request. The prompt may be missing.

    Raises:
        ValueError: as `find_first_pass`.
    """
    graph = Graph(nodes)
    imported = ImportedRequest()
    sampler, decoders = find_first_pass(graph, imported)
    _import_sampling(graph, sampler, imported)
    encoders = _import_prompts(graph, sampler, imported)
    _import_latents(graph, sampler, imported)
    model_nodes = _import_model(graph, sampler, imported)
    _import_loras(graph, model_nodes, encoders, imported)
    note_text_encoder(graph, encoders, model_nodes, imported)
    note_vae(graph, [sampler, *decoders], model_nodes, imported)
    _note_unread_inputs(graph, imported)
    imported.note_missing()
    return imported


def _note_unread_inputs(graph: Graph, imported: ImportedRequest) -> None:
    """Note the inputs that nobody read of all known nodes on the way."""
    unread = [
        (kind(node), name, value)
        for node in graph.visited.values()
        for name, value in unread_inputs(kind(node), node["inputs"])
    ]
    for node_kind, name, value in unread[:_MAX_NOTES]:
        imported.add_note(f"node {node_kind}, {name} {value}", "not supported")
    if len(unread) > _MAX_NOTES:
        imported.add_note(f"{len(unread) - _MAX_NOTES} more inputs", "not supported")


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
    sources = {
        "seed": _known(noise, "RandomNoise"),
        "steps": _known(sigmas, *_SCHEDULES_WITH_STEPS),
        "cfg_scale": _known(guider, *_GUIDERS),
    }
    for field, inputs, number in (
        ("seed", ("seed", "noise_seed"), int),
        ("steps", ("steps",), int),
        ("cfg_scale", ("cfg",), float),
    ):
        source = sources[field] or sampler
        value = _read(graph, imported, field, source, *inputs)
        if value is not None:
            imported.set_number(field, value, source=field, kind=number)
    if kind(guider) == "BasicGuider":
        imported.fields["cfg_scale"] = 1.0
    for field, node in (("seed", noise), ("steps", sigmas), ("cfg_scale", guider)):
        if node is not None and sources[field] is None:
            imported.fields.pop(field, None)
            imported.add_note(f"{field}, node {kind(node)}", "not supported")
    name = _read(graph, imported, "sampler", _known(solver, "KSamplerSelect") or sampler,
                 "sampler_name")  # fmt: skip
    if isinstance(name, str):
        imported.set_sampler(name)
    elif solver is not None:
        imported.set_sampler(kind(solver).removeprefix("Sampler"))
        imported.add_note(f"options of {kind(solver)}", "the sampler's defaults are used")
    name = _read(graph, imported, "scheduler", _known(sigmas, "BasicScheduler") or sampler,
                 "scheduler")  # fmt: skip
    if isinstance(name, str):
        imported.set_schedule(name)
    elif sigmas is not None:
        imported.set_schedule(kind(sigmas).removesuffix("Scheduler"))
        imported.add_note(f"options of {kind(sigmas)}", "the schedule's defaults are used")
    _note_partial_sampling(graph, sampler, sigmas, imported)


def _known(node: Node | None, *kinds: str) -> Node | None:
    """The node if it is of one of these types."""
    return node if kind(node) in kinds else None


def _note_partial_sampling(
    graph: Graph, sampler: Node, sigmas: Node | None, imported: ImportedRequest
) -> None:
    source = _known(sigmas, *_SCHEDULES_WITH_STEPS) or sampler
    denoise = _read(graph, imported, "denoise", source, "denoise")
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


def _import_prompts(graph: Graph, sampler: Node, imported: ImportedRequest) -> list[Node]:
    """Import both texts; returns the nodes that encode them, that of the prompt first."""
    encoders: list[Node] = []
    guider = graph.node(sampler["inputs"].get("guider"))
    if guider is not None and kind(guider) not in _GUIDERS:
        imported.add_note(f"prompt, node {kind(guider)}", "not supported")
        return encoders
    source = guider or sampler
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
            found = read_conditioning(graph, given, name, imported)
        except UnknownLink as exc:
            imported.add_note(name, f"it {exc}")
            continue
        text = without_networks(found.text) if found.applies_tags else found.text
        texts = (text, None) if name == "prompt" else (None, text)
        import_prompts(imported, *texts, applies_tags=False)
        if found.encoder is not None:
            encoders.append(found.encoder)
    return encoders


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
    elif name not in _EMPTY_LATENTS or latents.slot != 0:
        return None
    width, height = (_read(graph, imported, "resolution", node, side) for side in sides)
    return None if width is None or height is None else (width, height)


def _import_model(graph: Graph, sampler: Node, imported: ImportedRequest) -> list[Node]:
    """Import the name of the checkpoint and note nodes that modify the model.

    Returns the nodes that the model comes from, that next to the sampler first.
    """
    parts = (graph.node(sampler["inputs"].get(key)) for key in ("guider", "sigmas"))
    sources = [sampler, *filter(None, parts)]
    first, *others = [node["inputs"]["model"] for node in sources if "model" in node["inputs"]] or [
        None
    ]
    nodes = _follow_model(graph, first, imported, [])
    for given in others:  # the schedule has its own model
        _follow_model(graph, given, imported, nodes)
    return nodes


def _follow_model(
    graph: Graph, given: Any, imported: ImportedRequest, known: list[Node]
) -> list[Node]:
    """The nodes that a model comes from, up to its loader; notes those that are not `known`."""
    nodes: list[Node] = []
    for _ in range(_MAX_HOPS):
        node = graph.node(given)
        if node is None or any(node is other for other in (*known, *nodes)):
            break  # the end, a part that was followed before, or a loop
        nodes.append(node)
        inputs = node["inputs"]
        if kind(node) in _SHIFT_NODES:
            shift = _read(graph, imported, "shift", node, "shift")
            if shift not in (None, _SHIFT):
                imported.add_note(f"shift {shift}", f"the shift is {_SHIFT:g} here")
        elif "model" in inputs and kind(node) not in LORA_NODES:
            label = "loras, node" if "lora" in kind(node).lower() else "node"
            imported.add_note(f"{label} {kind(node)}", "left out; it changes the model")
        if kind(node) in _MODEL_NAMES:
            if not known:
                name = _read(graph, imported, "model", node, _MODEL_NAMES[kind(node)])
                imported.model = name if isinstance(name, str) else ""
            break
        if "model" not in inputs and "opt_model" not in inputs:
            imported.add_note(f"model and loras, node {kind(node)}", "not supported")
            break
        given = inputs.get("model", inputs.get("opt_model"))
    return nodes


def _import_loras(
    graph: Graph, model_nodes: list[Node], encoders: list[Node], imported: ImportedRequest
) -> None:
    """Import the LoRAs of the model; the one next to the checkpoint is applied first."""
    chains = [chain for node in encoders if (chain := text_encoder_nodes(graph, node)) is not None]
    for node in reversed(model_nodes):
        if kind(node) in LORA_NODES:
            on_text = [any(node is other for other in chain) for chain in chains]
            import_loras(graph, node, imported, is_on_text=not on_text or any(on_text))
            if any(on_text) and not all(on_text) and loads_loras(graph, node):
                imported.add_note(
                    f"loras, node {kind(node)}",
                    "only one of the two prompts had their text part; here both have it",
                )
