"""A device that PyTorch takes for an accelerator, because no test machine has one.

Its tensors live in the CPU's memory but refuse to mix with CPU tensors. It counts launches, and
waits and copies between host and device with the line that caused them; it has as much memory as a
test gives it; it breaks when a test wants it to.

`torch.inference_mode` does not go together with such tensors: `engine_step` runs without it.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from model.engine.engine import Engine
from tests.support.paths import ROOT

NAME = "sim"
_WAITING = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero")
_OURS = (f"{ROOT}/model/", f"{ROOT}/worker/")


@dataclass
class State:
    """What the device has done, and what it shall do.

    `limit` is its memory in bytes. `fail_at` is the launch that raises once; a broken device raises
    whenever it is used. `released` has the allocated bytes at each release of the cache.
    """

    limit: float = float("inf")
    fail_at: int | None = None
    failures: int = 0
    is_broken: bool = False
    launches: int = 0
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    allocated: int = 0
    peak: int = 0
    released: list[int] = field(default_factory=list)
    _storages: Counter[int] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise if the device is broken."""
        if self.is_broken:
            raise RuntimeError("simulated: the device is lost")

    def launch(self) -> None:
        """Count a kernel; raise if it fails."""
        self.launches += 1
        self.check()
        if self.fail_at is not None and self.launches >= self.fail_at:
            self.fail_at = None
            self.failures += 1
            raise RuntimeError("simulated: a kernel failed")

    def hold(self, tensor: "OnDevice") -> None:
        """Count the memory of a tensor until it dies."""
        storage = tensor.raw.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self._storages[place]:
            if self.allocated + size > self.limit:
                raise torch.OutOfMemoryError("simulated: no memory left")
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        self._storages[place] += 1
        weakref.finalize(tensor, self._drop, tensor.raw, place, size)

    def _drop(self, _: Tensor, place: int, size: int) -> None:
        self._storages[place] -= 1
        if not self._storages[place]:
            del self._storages[place]
            self.allocated -= size


_state = State()


class _Backend:
    """The module `torch.sim`."""

    @staticmethod
    def empty_cache() -> None:
        _state.released.append(_state.allocated)


@contextmanager
def simulated_accelerator() -> Iterator[State]:
    """The device `sim:0`, fresh and whole."""
    global _state
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME)
    backend = getattr(torch, NAME)
    _state = State()
    with ExitStack() as entered, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "empty_cache", _Backend.empty_cache, raising=False)
        plain_step: Any = Engine.step
        patch.setattr(Engine, "step", torch.no_grad()(plain_step.__wrapped__))
        operations: Any = _Operations
        modes: list[Any] = [_Functions(), operations(), torch.no_grad()]
        for mode in modes:
            entered.enter_context(mode)
        yield _state


class OnDevice(Tensor):
    """A tensor of the device; `raw` is the CPU tensor that it wraps."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> "OnDevice":
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(),
            dtype=raw.dtype, device=torch.device(NAME, 0),
        )  # fmt: skip
        made.raw = raw
        _state.hold(made)
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Factories that take Python data never reach the dispatcher with this device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_sim(kwargs.get("device")):
            _state.copies[f"to device {_where()}"] += 1
            return OnDevice(func(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            _state.copies[f"to device {_where()}"] += 1
            return OnDevice(torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)))
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            _state.waits[f"tolist {_where()}"] += 1
            return args[0].raw.tolist()
        return func(*args, **kwargs)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not any(isinstance(t, OnDevice) for t in tensors) and not _is_sim(kwargs.get("device")):
        return func(*args, **kwargs)
    if name in _WAITING:
        _state.check()
        _state.waits[f"{name} {_where()}"] += 1
        return func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
    if name == "aten::_to_copy":
        return _copied(func, args[0], kwargs)
    if name == "aten::copy_":
        if isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
            _state.copies[f"between {_where()}"] += 1
        func(_raw(args[0]), _raw(args[1]))
        return args[0]
    _refuse_others(name, tensors)
    if not func.is_view:
        _state.launch()
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
    written = [index for index, argument in enumerate(func._schema.arguments) if _is_out(argument)]
    return args[written[0]] if written and written[0] < len(args) else tree_map(_wrapped, out)


def _refuse_others(name: str, tensors: list[Tensor]) -> None:
    """Raise as a GPU does, which takes only numbers from the CPU."""
    for tensor in tensors:
        if not isinstance(tensor, OnDevice) and tensor.dim() > 0:
            shape = tuple(tensor.shape)
            raise RuntimeError(f"{name}: a CPU tensor of {shape} among the device's, {_where()}")


def _is_out(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _copied(func: Any, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """Copy between dtypes and devices."""
    _state.check()
    is_ours, device = isinstance(source, OnDevice), kwargs.get("device")
    to_device = _is_sim(device) or (is_ours and device is None)
    kept = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    raw: Tensor = func(_raw(source), **kept)
    if is_ours != to_device:
        _state.copies[f"{'to host' if is_ours else 'to device'} {_where()}"] += 1
    else:
        _state.launch()
    return OnDevice(raw.clone() if raw is _raw(source) else raw) if to_device else raw


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, OnDevice) else value


def _wrapped(value: Any) -> Any:
    is_bare = isinstance(value, Tensor) and not isinstance(value, OnDevice)
    return OnDevice(value) if is_bare else value


def _is_sim(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _where() -> str:
    """The innermost line of this project."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            return f"{path.rpartition('/')[2]}:{frame.f_lineno}"
    return "elsewhere"
