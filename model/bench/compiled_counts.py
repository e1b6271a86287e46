"""Counts the kernels and bytes of a forward of compiled blocks, as Inductor's schedule has them.

Inductor fuses what one kernel can compute and then writes code. This stops before the code: it
needs neither a compiler nor a device, and no memory for numbers. It schedules for the CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as autograd_config
from torch._inductor import config
from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from model.network.transformer.blocks import Blocks

Schedule = list[tuple[bool, int]]
"""Of every kernel: whether it is a library's (a matrix product, attention), and its bytes."""


class _Scheduled(BaseException):
    """Ends a compilation when its kernels are known."""


class ScheduledBlocks:
    """Stands for compiled blocks on the meta device: returns empty tensors and counts kernels.

    Each function is scheduled at its first call; later calls count as much, whatever their shapes.
    """

    def __init__(self) -> None:
        self.kernels = 0
        self.bytes = 0
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
                self._schedules[name] = schedule(function, arguments, **options)
            self.kernels += len(self._schedules[name])
            self.bytes += sum(size for is_library, size in self._schedules[name] if not is_library)
            return tree_map(torch.empty_like, self._outputs[name])

        return call


def schedule(function: Callable[..., Any], arguments: Any, **options: bool) -> Schedule:
    """The kernels that Inductor makes of a function of tensors with these shapes."""
    found: Schedule = []

    def stop(scheduler: Any) -> None:
        for node in scheduler.nodes:
            kinds = {type(part.node).__name__ for part in node.get_nodes()}
            if not isinstance(node, NopKernelSchedulerNode) and kinds != {"MultiOutput"}:
                found.append((node.is_extern(), node.get_read_write_buffers_sizes()))
        raise _Scheduled

    with _instead_of_code(stop), FakeTensorMode():
        fakes = tree_map(_on_cpu, arguments)
        try:
            torch.compile(function, dynamic=False)(*fakes, **options)
        except _Scheduled:
            return found
    raise RuntimeError(f"{function.__name__} was not compiled")


@contextmanager
def _instead_of_code(stop: Callable[[Any], None]) -> Iterator[None]:
    """Call `stop` with the schedule. No cache is used: it would have code of another process."""
    changed: Any = Scheduler
    plain = changed.codegen
    no_cache: Any = config.patch(fx_graph_cache=False, fx_graph_remote_cache=False)
    no_autograd_cache: Any = autograd_config.patch(enable_autograd_cache=False)
    torch.compiler.reset()
    try:
        changed.codegen = stop
        with no_cache, no_autograd_cache:
            yield
    finally:
        changed.codegen = plain
        torch.compiler.reset()


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
