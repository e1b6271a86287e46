"""Reads the node graph that ComfyUI writes into picture files.

Starts at the first sampler and follows its inputs. Adds a note about every unknown node.
"""

import json
from collections.abc import Iterator
from typing import Any

from model.recipes.imported import ImportedRequest, read_number

MAX_GRAPH_CHARS = 5_000_000
_MAX_HOPS = 200
_SHIFT = 3.0

Node = dict[str, Any]

_SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})
_VALUE_INPUTS = ("value", "text", "string", "seed", "noise_seed", "int", "float", "number")
"""Inputs in which primitive nodes keep their value."""


def read_workflow(text: str) -> ImportedRequest:
    """Read a graph as a request; `text` is its JSON in ComfyUI's API format.

    Raises:
        ValueError: it is too long, not valid JSON or has no known sampler.
    """
    graph = _Graph(text)
    imported = ImportedRequest()
    sampler = graph.sampler(imported)
    _import_sampling(graph, sampler, imported)
    _import_prompts(graph, sampler, imported)
    _import_latents(graph, sampler, imported)
    _import_model(graph, sampler, imported)
    return imported


class _Graph:
    """The nodes by id. Inputs are values or links [id, output]."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_GRAPH_CHARS:
            raise ValueError(f"the workflow has {len(text)} characters; at most {MAX_GRAPH_CHARS}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ValueError("the workflow cannot be read: not valid JSON") from exc
        self._nodes: dict[str, Node] = {
            name: node
            for name, node in (found.items() if isinstance(found, dict) else ())
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def node(self, link: Any) -> Node | None:
        """The node that an input is linked to; None if it is a value."""
        if isinstance(link, list) and len(link) == 2 and isinstance(link[0], str | int):
            return self._nodes.get(str(link[0]))
        return None

    def linked(self, node: Node | None, *names: str) -> Node | None:
        """The node behind the first of these inputs that is linked."""
        inputs = node["inputs"] if node else {}
        return next((found for name in names if (found := self.node(inputs.get(name)))), None)

    def value(self, node: Node | None, *names: str) -> Any:
        """The value of the first of these inputs that exists, followed through links."""
        inputs = node["inputs"] if node else {}
        given = next((inputs[name] for name in names if name in inputs), None)
        for _ in range(_MAX_HOPS):
            source = self.node(given)
            if source is None:
                return None if isinstance(given, list | dict) else given
            given = next(
                (source["inputs"][name] for name in _VALUE_INPUTS if name in source["inputs"]), None
            )
        return None

    def chain(self, node: Node | None, *names: str) -> Iterator[Node]:
        """The node and its predecessors along these inputs."""
        for _ in range(_MAX_HOPS):
            if node is None:
                return
            yield node
            node = self.linked(node, *names)

    def sampler(self, imported: ImportedRequest) -> Node:
        """The sampler of the first pass, whose latents do not come from another sampler."""
        samplers = [node for node in self._nodes.values() if kind(node) in _SAMPLERS]
        firsts = [
            node for node in samplers if not any(kind(n) in _SAMPLERS for n in self._before(node))
        ]
        if not firsts:
            raise ValueError("the workflow has no sampler that is supported")
        if len(samplers) > 1:
            imported.add_note(f"{len(samplers)} samplers", "only the first pass is imported")
        return firsts[0]

    def _before(self, sampler: Node) -> Iterator[Node]:
        """The nodes that a sampler's latents come from."""
        first = self.linked(sampler, "latent_image")
        return self.chain(first, "samples", "latent_image", "latent", "pixels", "image", "images")


def kind(node: Node | None) -> str:
    """The type of a node; "" for None."""
    return str(node.get("class_type", "")) if node else ""


def _import_sampling(graph: _Graph, sampler: Node, imported: ImportedRequest) -> None:
    """Import seed, steps, guidance, sampler and schedule, from inputs or separate nodes."""
    noise, guider = graph.linked(sampler, "noise"), graph.linked(sampler, "guider")
    sigmas, solver = graph.linked(sampler, "sigmas"), graph.linked(sampler, "sampler")
    seed = graph.value(noise or sampler, "seed", "noise_seed")
    for name, value, number in (
        ("seed", seed, int),
        ("steps", graph.value(sigmas or sampler, "steps"), int),
        ("cfg_scale", graph.value(guider or sampler, "cfg"), float),
    ):
        if value is not None:
            imported.set_number(name, value, source=name, kind=number)
    if kind(guider) == "BasicGuider":
        imported.fields["cfg_scale"] = 1.0
    if isinstance(name := graph.value(solver or sampler, "sampler_name"), str):
        imported.set_sampler(name)
    elif solver is not None:
        imported.set_sampler(kind(solver).removeprefix("Sampler"))
        imported.add_note(f"options of {kind(solver)}", "the sampler's defaults are used")
    if isinstance(name := graph.value(sigmas or sampler, "scheduler"), str):
        imported.set_schedule(name)
    elif sigmas is not None:
        imported.set_schedule(kind(sigmas).removesuffix("Scheduler"))
    _note_partial_sampling(graph, sampler, sigmas, imported)


def _note_partial_sampling(
    graph: _Graph, sampler: Node, sigmas: Node | None, imported: ImportedRequest
) -> None:
    denoise = graph.value(sigmas or sampler, "denoise")
    if denoise is not None and denoise != 1:
        imported.add_note(
            f"denoise {denoise}",
            "made from another picture, which is not in the file",
        )
    if kind(sampler) != "KSamplerAdvanced":
        return
    start, end = graph.value(sampler, "start_at_step"), graph.value(sampler, "end_at_step")
    steps = imported.fields.get("steps", 0)
    if start not in (None, 0) or (isinstance(end, int) and end < steps):
        imported.add_note(f"steps {start} to {end}", "all steps are run")


def _import_prompts(graph: _Graph, sampler: Node, imported: ImportedRequest) -> None:
    guider = graph.linked(sampler, "guider")
    source = guider or sampler
    for name, inputs in (
        ("prompt", ("positive", "conditioning")),
        ("negative_prompt", ("negative",)),
    ):
        text = _text(graph, graph.linked(source, *inputs), inputs[0], imported)
        if text is not None:
            imported.fields[name] = text
        elif name == "prompt":
            imported.add_note("prompt", "no text is connected to the sampler")


def _text(graph: _Graph, node: Node | None, side: str, imported: ImportedRequest) -> str | None:
    """The text of a conditioning; adds a note about every node on the way."""
    for step in graph.chain(node, "conditioning", "conditioning_1", "conditioning_to", side):
        if kind(step) == "ConditioningZeroOut":
            return ""
        text = graph.value(step, "text", "prompt")
        if isinstance(text, str):
            return text
        imported.add_note(f"node {kind(step)}", "ignored")
    return None


def _import_latents(graph: _Graph, sampler: Node, imported: ImportedRequest) -> None:
    latents = graph.linked(sampler, "latent_image")
    width, height = graph.value(latents, "width"), graph.value(latents, "height")
    if kind(latents).startswith("Empty") and isinstance(width, int) and isinstance(height, int):
        imported.fields["resolution"] = f"{width}x{height}"
        count = graph.value(latents, "batch_size")
        if isinstance(count, int) and count > 1:
            imported.add_note(
                f"batch of {count}", "only one picture is made; the others had different noise"
            )
    elif latents is not None:
        imported.add_note(
            f"node {kind(latents)}", "latents of another picture, which is not in the file"
        )


def _import_model(graph: _Graph, sampler: Node, imported: ImportedRequest) -> None:
    """Import the name of the checkpoint and the nodes that modify the model."""
    sources = [sampler, graph.linked(sampler, "guider"), graph.linked(sampler, "sigmas")]
    first = next((n for source in sources if (n := graph.linked(source, "model"))), None)
    loras = []
    for node in graph.chain(first, "model"):
        name = graph.value(node, "unet_name", "ckpt_name")
        if isinstance(name, str):
            imported.model = name
            break
        if isinstance(graph.value(node, "lora_name"), str):
            loras.append(node)
        elif (shift := graph.value(node, "shift")) is not None:
            if shift != _SHIFT:
                imported.add_note(f"shift {shift}", f"the shift is {_SHIFT:g} here")
        else:
            imported.add_note(f"node {kind(node)}", "ignored")
    for node in reversed(loras):  # the LoRA next to the checkpoint is applied first
        _import_lora(graph, node, imported)


def _import_lora(graph: _Graph, node: Node, imported: ImportedRequest) -> None:
    """Import a LoRA by its file name without the extension."""
    file = str(graph.value(node, "lora_name"))
    weight = read_number(graph.value(node, "strength_model"), float)
    text_weight = read_number(graph.value(node, "strength_clip"), float)
    if weight is None:
        imported.add_note(f"LoRA {file}", "left out because its strength is not a number")
        return
    if text_weight not in (None, weight):
        imported.add_note(
            f"LoRA {file}", f"its text part is applied with {weight:g}, not {text_weight:g}"
        )
    imported.add_lora(file.replace("\\", "/").removesuffix(".safetensors"), weight)
