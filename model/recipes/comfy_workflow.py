"""The graph of nodes that ComfyUI writes into its pictures, as far as it is a plain text-to-image.

From the node that saves back to the sampler, and from there along its inputs. Nodes whose meaning
is not known are noted. Knows no files.
"""

import json
from collections.abc import Iterator
from typing import Any

from model.recipes.imported import ImportedRequest, read_number

MAX_GRAPH_CHARS = 5_000_000
_MAX_HOPS = 200
_USUAL_SHIFT = 3.0

Node = dict[str, Any]

_SAMPLERS = frozenset({"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"})
_VALUE_INPUTS = ("value", "text", "string", "seed", "noise_seed", "int", "float", "number")
"""Where nodes that only hand a value on keep it."""


def read_workflow(text: str) -> ImportedRequest:
    """What the graph in a picture asks for; `text` is its JSON in the form for the server.

    Raises:
        ValueError: too long, no graph, or no sampler is in it.
    """
    graph = _Graph(text)
    reading = ImportedRequest()
    sampler = graph.sampler(reading)
    _take_sampling(graph, sampler, reading)
    _take_prompts(graph, sampler, reading)
    _take_latents(graph, sampler, reading)
    _take_model(graph, sampler, reading)
    return reading


class _Graph:
    """Nodes by id, with inputs that are values or links [id, output]."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_GRAPH_CHARS:
            raise ValueError(f"the workflow has {len(text)} characters; at most {MAX_GRAPH_CHARS}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ValueError("the workflow is not readable: no JSON") from exc
        self._nodes: dict[str, Node] = {
            name: node
            for name, node in (found.items() if isinstance(found, dict) else ())
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def node(self, link: Any) -> Node | None:
        """The node that an input is linked to; None where it is a value."""
        if isinstance(link, list) and len(link) == 2 and isinstance(link[0], str | int):
            return self._nodes.get(str(link[0]))
        return None

    def linked(self, node: Node | None, *names: str) -> Node | None:
        """The node that the first linked one of these inputs comes from."""
        inputs = node["inputs"] if node else {}
        return next((found for name in names if (found := self.node(inputs.get(name)))), None)

    def value(self, node: Node | None, *names: str) -> Any:
        """The value of the first of these inputs that is there, from another node if need be."""
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
        """The node and all that it comes from along these inputs."""
        for _ in range(_MAX_HOPS):
            if node is None:
                return
            yield node
            node = self.linked(node, *names)

    def sampler(self, reading: ImportedRequest) -> Node:
        """The sampler of the first pass: the one that starts from no other sampler's latents."""
        samplers = [node for node in self._nodes.values() if kind(node) in _SAMPLERS]
        firsts = [
            node for node in samplers if not any(kind(n) in _SAMPLERS for n in self._before(node))
        ]
        if not firsts:
            raise ValueError("the workflow has no sampler that is known here")
        if len(samplers) > 1:
            reading.note(f"{len(samplers)} samplers", "only the first pass is taken")
        return firsts[0]

    def _before(self, sampler: Node) -> Iterator[Node]:
        """Nodes from which a sampler's latents come, whatever they are."""
        first = self.linked(sampler, "latent_image")
        return self.chain(first, "samples", "latent_image", "latent", "pixels", "image", "images")


def kind(node: Node | None) -> str:
    """The type of a node; "" of none."""
    return str(node.get("class_type", "")) if node else ""


def _take_sampling(graph: _Graph, sampler: Node, reading: ImportedRequest) -> None:
    """Seed, steps, guidance, sampler and schedule: inputs, or nodes of their own."""
    noise, guider = graph.linked(sampler, "noise"), graph.linked(sampler, "guider")
    sigmas, solver = graph.linked(sampler, "sigmas"), graph.linked(sampler, "sampler")
    seed = graph.value(noise or sampler, "seed", "noise_seed")
    for name, value, number in (
        ("seed", seed, int),
        ("steps", graph.value(sigmas or sampler, "steps"), int),
        ("cfg_scale", graph.value(guider or sampler, "cfg"), float),
    ):
        if value is not None:
            reading.set_number(name, value, source=name, kind=number)
    if kind(guider) == "BasicGuider":
        reading.fields["cfg_scale"] = 1.0
    if isinstance(name := graph.value(solver or sampler, "sampler_name"), str):
        reading.set_sampler(name)
    elif solver is not None:
        reading.set_sampler(kind(solver).removeprefix("Sampler"))
        reading.note(f"options of {kind(solver)}", "the sampler's defaults are taken")
    if isinstance(name := graph.value(sigmas or sampler, "scheduler"), str):
        reading.set_schedule(name)
    elif sigmas is not None:
        reading.set_schedule(kind(sigmas).removesuffix("Scheduler"))
    _note_partial_sampling(graph, sampler, sigmas, reading)


def _note_partial_sampling(
    graph: _Graph, sampler: Node, sigmas: Node | None, reading: ImportedRequest
) -> None:
    denoise = graph.value(sigmas or sampler, "denoise")
    if denoise is not None and denoise != 1:
        reading.note(
            f"denoise {denoise}",
            "the picture was made from another one, which the file does not hold",
        )
    if kind(sampler) != "KSamplerAdvanced":
        return
    start, end = graph.value(sampler, "start_at_step"), graph.value(sampler, "end_at_step")
    steps = reading.fields.get("steps", 0)
    if start not in (None, 0) or (isinstance(end, int) and end < steps):
        reading.note(f"steps {start} to {end}", "all steps are taken")


def _take_prompts(graph: _Graph, sampler: Node, reading: ImportedRequest) -> None:
    guider = graph.linked(sampler, "guider")
    source = guider or sampler
    for name, inputs in (
        ("prompt", ("positive", "conditioning")),
        ("negative_prompt", ("negative",)),
    ):
        text = _text(graph, graph.linked(source, *inputs), inputs[0], reading)
        if text is not None:
            reading.fields[name] = text
        elif name == "prompt":
            reading.note("prompt", "no text leads to the sampler")


def _text(graph: _Graph, node: Node | None, side: str, reading: ImportedRequest) -> str | None:
    """The text that a conditioning is made of; nodes on the way are noted."""
    for step in graph.chain(node, "conditioning", "conditioning_1", "conditioning_to", side):
        if kind(step) == "ConditioningZeroOut":
            return ""
        text = graph.value(step, "text", "prompt")
        if isinstance(text, str):
            return text
        reading.note(f"node {kind(step)}", "it is passed over")
    return None


def _take_latents(graph: _Graph, sampler: Node, reading: ImportedRequest) -> None:
    latents = graph.linked(sampler, "latent_image")
    width, height = graph.value(latents, "width"), graph.value(latents, "height")
    if kind(latents).startswith("Empty") and isinstance(width, int) and isinstance(height, int):
        reading.fields["resolution"] = f"{width}x{height}"
        count = graph.value(latents, "batch_size")
        if isinstance(count, int) and count > 1:
            reading.note(f"batch of {count}", "one picture is made; later ones had other noise")
    elif latents is not None:
        reading.note(
            f"node {kind(latents)}", "latents of another picture, which the file does not hold"
        )


def _take_model(graph: _Graph, sampler: Node, reading: ImportedRequest) -> None:
    """The name of the checkpoint; whatever changes the model on the way to the sampler."""
    sources = [sampler, graph.linked(sampler, "guider"), graph.linked(sampler, "sigmas")]
    first = next((n for source in sources if (n := graph.linked(source, "model"))), None)
    loras = []
    for node in graph.chain(first, "model"):
        name = graph.value(node, "unet_name", "ckpt_name")
        if isinstance(name, str):
            reading.model = name
            break
        if isinstance(graph.value(node, "lora_name"), str):
            loras.append(node)
        elif (shift := graph.value(node, "shift")) is not None:
            if shift != _USUAL_SHIFT:
                reading.note(f"shift {shift}", f"it is {_USUAL_SHIFT:g} here")
        else:
            reading.note(f"node {kind(node)}", "it is passed over")
    for node in reversed(loras):  # the one next to the checkpoint was applied first
        _take_lora(graph, node, reading)


def _take_lora(graph: _Graph, node: Node, reading: ImportedRequest) -> None:
    """A LoRA by its file's name without the ending."""
    file = str(graph.value(node, "lora_name"))
    weight = read_number(graph.value(node, "strength_model"), float)
    in_text = read_number(graph.value(node, "strength_clip"), float)
    if weight is None:
        reading.note(f"LoRA {file}", "left out, since its strength is no number")
        return
    if in_text not in (None, weight):
        reading.note(f"LoRA {file}", f"its text part has {weight:g} here, not {in_text:g}")
    reading.add_lora(file.replace("\\", "/").removesuffix(".safetensors"), weight)
