"""Counts what a computation asks of a device, without one: on tensors that have only a shape."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_MATRIX = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "attention")
"""Words in the names of kernels whose time is not that of moving bytes."""

_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
              "_unsafe_view", "detach", "alias", "lift_fresh", "_reshape_alias"}  # fmt: skip
_WAITING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero"}


class KernelCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts launches, bytes of elementwise kernels, waits and copies between host and device.

    Views and allocations launch nothing. Attention and RMS norm count as one launch each, as on a
    GPU, whose norm copies an input that is not contiguous. Bytes are those of all inputs and
    outputs; a broadcast dimension counts once. A wait reads numbers back: they are 1.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.waits = 0
        self.copies = 0
        self._is_inside = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in _WAITING and args[0].is_meta:
            self.waits += 1
            return True if args[0].dtype == torch.bool else 1.0
        out = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if not any(tensor.is_meta for tensor in tensors):
            return out
        if name in ("_to_copy", "copy_") and not all(tensor.is_meta for tensor in tensors):
            self.copies += 1
        elif not func.is_view and name not in _NO_KERNEL and not self._is_inside:
            self.count(name, func, args, kwargs, out)
        return out

    def count(self, name: str, func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        """Add one launch."""
        self.launches[name] += 1
        if any(word in name for word in _MATRIX):
            return
        self.bytes[name] += _moved(func, args, kwargs, out)

    def as_one(self, name: str, call: Callable[[], Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """Count everything that `call` launches as one launch."""
        self._is_inside = True
        try:
            out = call()
        finally:
            self._is_inside = False
        self.launches[name] += 1
        self.bytes[name] += sum(map(_size, (*inputs, out)))
        return out


@contextmanager
def counted() -> Iterator[tuple[KernelCount, FlopCounterMode]]:
    """Count what runs inside: kernels, and floating-point operations of matrix products."""
    kernels, flops = KernelCount(), FlopCounterMode(display=False)
    modes: list[Any] = [flops, kernels, _OneLaunchEach(kernels)]
    with ExitStack() as entered:
        for mode in modes:
            entered.enter_context(mode)
        yield kernels, flops


class _OneLaunchEach(TorchFunctionMode):
    """On a GPU these are one kernel each; without a device they fall apart into many."""

    def __init__(self, counts: KernelCount) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and args[0].is_meta:
            self._counts.waits += 1
            return [1] * args[0].numel()
        if func is functional.scaled_dot_product_attention:
            q, k, v = args[:3] if args else (kwargs[name] for name in ("query", "key", "value"))
            if q.is_meta:
                return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        if func is functional.rms_norm and args[0].is_meta:
            x = args[0]
            if not x.is_contiguous():
                self._counts.as_one("contiguous", lambda: x, [x])
            return self._counts.as_one("rms_norm", lambda: func(*args, **kwargs), [x])
        return func(*args, **kwargs)


def _moved(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """Bytes of the inputs that a kernel reads and of the outputs that it writes."""
    outs = {id(kwargs[a.name]) for a in func._schema.arguments if a.is_out and a.name in kwargs}
    read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    read = [tensor for tensor in read if id(tensor) not in outs]
    written = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    return sum(map(_size, (*read, *written)))


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor's distinct elements."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()
