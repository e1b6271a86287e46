"""Products with weights: by the fastest exact kernel that PyTorch has, or in float8."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.network.transformer.float8 import Float8, float8_linear

Weight = Tensor | Float8
"""A matrix as it is, or in float8."""

_HAS_ONEDNN = torch._C.has_mkl and torch._C._has_mkldnn


def linear(x: Tensor, weight: Weight) -> Tensor:
    """Multiply `x` (..., in) by the transpose of `weight` (out, in).

    PyTorch computes products in float32 on x86 by MKL, which uses only half of the vector unit of
    a processor that is not Intel's; oneDNN, which is also part of PyTorch, uses all of it. For
    weights with gaps between their rows it has only a kernel that takes seconds. Inductor does not
    know how to call it.
    """
    if isinstance(weight, Float8):
        return float8_linear(x, weight)
    if _is_for_onednn(x) and weight.is_contiguous():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return product
    return functional.linear(x, weight)


def linear_each(x: Tensor, weights: Weight, count: int) -> Sequence[Tensor]:
    """The products of `x` (..., in) with each of `weights` (count, out, in); one on a GPU.

    In float8 the weights are one matrix (count * out, in).
    """
    if isinstance(weights, Float8):
        return float8_linear(x, weights).chunk(count, dim=-1)
    if _is_for_onednn(x):
        return [linear(x, weight) for weight in weights.unbind(0)]
    flat = x.reshape(1, -1, x.shape[-1]).expand(len(weights), -1, -1)
    return torch.bmm(flat, weights.mT).view(len(weights), *x.shape[:-1], -1).unbind(0)


def _is_for_onednn(x: Tensor) -> bool:
    is_slow = x.device.type == "cpu" and x.dtype is torch.float32
    return _HAS_ONEDNN and is_slow and not torch.compiler.is_dynamo_compiling()
