"""Holds weights under the names of a library's module, without the library.

Importing diffusers and transformers takes longer than everything else that a worker does until its
first picture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from model.files.weight_shapes import Shapes


class WeightTree(nn.Module):
    """A module's parts by name or number; the last ones have a `weight` and perhaps a `bias`.

    The functions that compute with the weights are elsewhere. `config` has what no weight tells.
    """

    def __init__(self, shapes: Shapes, config: Any = None) -> None:
        """Weights of these shapes on the meta device; a name's parts are separated by dots."""
        super().__init__()
        self.config = config
        for name, shape in shapes.items():
            *path, last = name.split(".")
            self._part(path).register_parameter(last, _without_memory(shape))

    def _part(self, path: list[str]) -> "WeightTree":
        if not path:
            return self
        if path[0] not in self._modules:
            self.add_module(path[0], type(self)({}))
        part: Self = getattr(self, path[0])
        return part._part(path[1:])

    def __getitem__(self, number: int) -> Any:
        return self._modules[str(number)]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Float32Tree(WeightTree):
    """Weights of any precision, with which everything is computed in float32."""


def _without_memory(shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
