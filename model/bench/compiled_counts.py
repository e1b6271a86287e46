"""Counts the kernels and bytes of a forward of compiled blocks, as Inductor's schedule has them.

Inductor fuses what one kernel can compute and then writes code. This stops before the code: it
needs neither a compiler nor a device, and no memory for the network's numbers. It schedules tensors
of the CPU by the rules for Triton, which is what writes the code of a GPU.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy
import sympy
import torch
from torch import Tensor
from torch._functorch import config as autograd_config
from torch._inductor import config, scheduler
from torch._inductor.dependencies import MemoryDep
from torch._inductor.ir import TensorBox, TritonTemplateBuffer
from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler
from torch._inductor.select_algorithm import AlgorithmSelectorCache
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from model.network.transformer.blocks import Blocks

Schedule = list[int]
"""Of every kernel its bytes, without those of a matrix product or attention in it."""


class _Scheduled(BaseException):
    """Ends a compilation when its kernels are known."""


class ScheduledBlocks:
    """Stands for compiled blocks on the meta device: returns empty tensors and counts kernels.

    Each function is scheduled at its first call; later calls count as much, whatever their shapes.
    """

    def __init__(self, *, templates: bool = False) -> None:
        self.kernels = 0
        self.bytes = 0
        self._templates = templates
        self._schedules: dict[str, Schedule] = {}
        self._outputs: dict[str, Any] = {}

    def blocks(self) -> Blocks:
        """The functions for `Transformer.use`."""
        counting, (enter, onward, last, _) = self._counting, Blocks()
        return Blocks(counting(enter), counting(onward), counting(last), at_once=True)

    def reset(self) -> None:
        """Count from zero."""
        self.kernels = self.bytes = 0

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__

        def call(*arguments: Any, **options: bool) -> Any:
            if name not in self._schedules:
                self._outputs[name] = function(*arguments, **options)
                self._schedules[name] = schedule(
                    partial(function, **options), arguments, templates=self._templates
                )
            self.kernels += len(self._schedules[name])
            self.bytes += sum(self._schedules[name])
            return tree_map(torch.empty_like, self._outputs[name])

        return call


def schedule(
    function: Callable[..., Any], arguments: Iterable[Any], *, templates: bool = False
) -> Schedule:
    """The kernels that Inductor makes of a function of tensors with these shapes.

    With `templates` all matrix products are its own, not a library's, and may have in them what is
    computed from their results.
    """
    found: Schedule = []

    def stop(scheduler: Any) -> None:
        for node in scheduler.nodes:
            kinds = {type(part.node).__name__ for part in node.get_nodes()}
            if not isinstance(node, NopKernelSchedulerNode) and kinds != {"MultiOutput"}:
                found.append(_moved(node))
        raise _Scheduled

    with _instead_of_code(stop, templates=templates), FakeTensorMode():
        fakes = tree_map(_on_cpu, tuple(arguments))
        try:
            torch.compile(function, dynamic=False)(*fakes)
        except _Scheduled:
            return found
    name = getattr(function, "__name__", function)
    raise RuntimeError(f"{name} was not compiled")


def _moved(node: Any) -> int:
    """Bytes that a kernel moves, without those of a product in it."""
    is_product = node.is_template()
    if node.is_extern() or (is_product and len(node.get_nodes()) == 1):
        return 0
    moved = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    for name in moved:
        reads = [dep for dep in node.read_writes.reads if dep.name == name]
        if (numbers := _numbers_read(name, reads)) is not None:
            moved[name] = numbers * V.graph.get_dtype(name).itemsize
    if not is_product:
        return int(sum(moved.values()))
    product = node.get_template_node()
    operands = {operand.get_name() for operand in product.inputs}
    result = int(product.get_numel()) * int(product.get_dtype().itemsize)
    return int(sum(size for name, size in moved.items() if name not in operands)) - result


def _numbers_read(name: str, reads: list[Any]) -> int | None:
    """How many numbers of a buffer are read, if only a part of it is; else None.

    Inductor counts the whole buffer if its parts are read in several ways.
    """
    whole = V.graph.get_numel(name)
    if not reads or not all(isinstance(dep, MemoryDep) and not dep.is_indirect() for dep in reads):
        return None
    if any(dep.get_numel() >= whole for dep in reads):
        return None
    is_read = numpy.zeros(int(V.graph.get_buffer(name).get_layout().storage_size()), dtype=bool)
    for dep in reads:
        is_read[_places(dep)] = True
    return int(is_read.sum())


def _places(dep: Any) -> Any:
    """The places of all numbers that a loop over the ranges of `dep` reads."""
    sides = {name: int(size) for name, size in dep.ranges.items() if name in dep.index.free_symbols}
    functions = {
        "ModularIndexing": lambda x, by, end: x // by % end,
        "FloorDiv": lambda x, by: x // by,
    }
    place = sympy.lambdify(list(sides), dep.index, [functions, "numpy"])
    return place(*numpy.ogrid[tuple(slice(side) for side in sides.values())])


@contextmanager
def _instead_of_code(stop: Callable[[Any], None], *, templates: bool) -> Iterator[None]:
    """Call `stop` with the schedule. No cache is used: it would have code of another process."""
    changes: list[tuple[Any, str, Any]] = [
        (Scheduler, "codegen", stop), (scheduler, "has_triton", lambda *_: True)
    ]  # fmt: skip
    if templates:
        changes.append((AlgorithmSelectorCache, "__call__", _as_template))
    ours: Any = config.patch(
        fx_graph_cache=False, fx_graph_remote_cache=False, cpu_backend="triton"
    )
    no_autograd_cache: Any = autograd_config.patch(enable_autograd_cache=False)
    torch.compiler.reset()
    with ExitStack() as stack:
        stack.callback(torch.compiler.reset)
        for place, name, value in changes:
            stack.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, value)
        stack.enter_context(ours)
        stack.enter_context(no_autograd_cache)
        yield


def _as_template(
    _: AlgorithmSelectorCache, name: str, choices: Any, inputs: Any, layout: Any, **__: Any
) -> Any:
    """Instead of measuring which kernel is the fastest for a product: the template."""
    template = TritonTemplateBuffer(layout=layout, inputs=inputs, make_kernel_render=None)
    return TensorBox.create(template), choices[0]


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
