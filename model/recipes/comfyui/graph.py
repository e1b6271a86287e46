"""Follows the links of a ComfyUI graph, as far as the nodes on the way are known."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from model.recipes.comfyui.nodes import (
    COMPUTED,
    CONTEXTS,
    REPEATED_INPUTS,
    REROUTES,
    labelled_side,
)

Node = dict[str, Any]

_MAX_HOPS = 200
_MAX_DEPTH = 30
_MAX_TEXT_CHARS = 100_000
_MAX_COMPUTED_CHARS = 2_000_000
"""Characters of all computed texts, which stay in memory while a graph is read."""


class UnknownLink(ValueError):
    """A link cannot be followed; the text says why, after the name of the input."""


class Output(NamedTuple):
    """An output of a node, by its position."""

    node: Node
    slot: int


def kind(node: Node | None) -> str:
    """The type of a node; "" for None."""
    return str(node.get("class_type", "")) if node else ""


class Graph:
    """The nodes by id, and the ids of their users. Inputs are values or links [id, output]."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self.nodes: dict[str, Node] = {
            name: node
            for name, node in nodes.items()
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }
        self.visited: dict[str, Node] = {}
        """The nodes that were followed, by id."""
        self._computed: dict[tuple[int, int], Any] = {}
        self._computed_chars = 0
        self.users: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for source in self._sources(node):
                self.users.setdefault(source, []).append(name)

    def value(self, given: Any, depth: int = 0) -> Any:
        """The value of an input, followed through links.

        Raises:
            UnknownLink: it is linked to something that is not known to be a value.
        """
        found = self._follow(given)
        if isinstance(found, Output):
            return self._compute(found, depth)
        if isinstance(found, list | dict):
            raise UnknownLink("is not a value")
        return found

    def output(self, given: Any) -> Output | None:
        """The output that an input is linked to, past nodes that only pass it on; None if none."""
        try:
            found = self._follow(given)
        except UnknownLink:
            return None
        return found if isinstance(found, Output) else None

    def node(self, given: Any) -> Node | None:
        """The node that an input is linked to, as `output`."""
        found = self.output(given)
        return found.node if found else None

    def after(self, starts: list[str]) -> set[str]:
        """Ids of all nodes that use an output of these nodes, directly or through others."""
        found: set[str] = set()
        pending = list(starts)
        while pending:
            for name in self.users.get(pending.pop(), ()):
                if name not in found:
                    found.add(name)
                    pending.append(name)
        return found

    def before(self, starts: list[str]) -> set[str]:
        """Ids of these nodes and of all nodes that they use, directly or through others."""
        found = set(starts)
        pending = list(starts)
        while pending:
            for name in self._sources(self.nodes[pending.pop()]):
                if name in self.nodes and name not in found:
                    found.add(name)
                    pending.append(name)
        return found

    def _sources(self, node: Node) -> Iterator[str]:
        return (str(given[0]) for given in node["inputs"].values() if _is_link(given))

    def _follow(self, given: Any) -> Any:
        """The value, or the output that is not just an input of its node."""
        for _ in range(_MAX_HOPS):
            if not _is_link(given):
                return given
            node = self.nodes.get(str(given[0]))
            if node is None:
                raise UnknownLink("is linked to a node that is not in the workflow")
            self.visited[str(given[0])] = node
            name = _repeated_input(node, given[1])
            if name is None:
                return Output(node, given[1])
            if name in node["inputs"]:
                given = node["inputs"][name]
            elif kind(node) in CONTEXTS and "base_ctx" in node["inputs"]:
                base = node["inputs"]["base_ctx"]
                given = [base[0], given[1]] if _is_link(base) else None
            else:
                raise UnknownLink(f"is linked to {kind(node)}, which has no {name}")
        raise UnknownLink("is linked to a loop")

    def _compute(self, output: Output, depth: int) -> Any:
        node, slot = output
        unknown = UnknownLink(f"is linked to output {slot} of {kind(node)}, which is not supported")
        if depth > _MAX_DEPTH:
            raise UnknownLink("is linked through too many nodes")

        def get(name: str) -> Any:
            found = self.value(node["inputs"].get(name, ""), depth + 1)
            if isinstance(found, str) and len(found) > _MAX_TEXT_CHARS:
                raise UnknownLink(f"is linked to {kind(node)}, whose text is too long")
            return found

        place = (id(node), slot)
        if place not in self._computed:  # each once: nodes may use an output many times
            found: Any = labelled_side(kind(node), slot, get)
            if found is None and kind(node) in COMPUTED and slot == 0:
                found = COMPUTED[kind(node)](get)
            if found is None or len(str(found)) > _MAX_TEXT_CHARS:
                raise unknown
            self._computed_chars += len(str(found))
            if self._computed_chars > _MAX_COMPUTED_CHARS:
                raise UnknownLink("is linked to texts that are too long together")
            self._computed[place] = found
        return self._computed[place]


def _is_link(given: Any) -> bool:
    return (
        isinstance(given, list)
        and len(given) == 2
        and isinstance(given[0], str | int)
        and isinstance(given[1], int)
    )


def _repeated_input(node: Node, slot: int) -> str | None:
    """The input that an output of a known node repeats; None if it is something else."""
    if kind(node) in REPEATED_INPUTS:
        names = REPEATED_INPUTS[kind(node)]
        return names[slot] if 0 <= slot < len(names) else None
    inputs: list[str] = list(node["inputs"])
    return inputs[0] if kind(node) in REROUTES and len(inputs) == 1 and slot == 0 else None
