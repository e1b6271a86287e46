"""The transformer's large products in float8 (E4M3), with a scale for each row of both operands.

Format: OCP 8-bit Floating Point Specification (OFP8), revision 1.0. The weights are kept beside
the others, because LoRAs are merged into those, and requests that must be exact are computed by
them.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_KIND = torch.float8_e4m3fn
LARGEST = torch.finfo(_KIND).max
_NUMBERS, _SCALE = "float8", "float8_scale"
"""The attributes of a module that has a weight in float8."""


class Float8(NamedTuple):
    """A matrix: numbers (rows, columns) in E4M3, and the float32 factor (rows, 1) of each row."""

    numbers: Tensor
    scale: Tensor


def quantised(x: Tensor) -> Float8:
    """Round a matrix: the largest number of each row becomes the largest of E4M3.

    A row with a number that is not finite stays without finite numbers.
    """
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True)
    scale = (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)  # for rows of zeros
    return Float8((wide / scale).clamp(-LARGEST, LARGEST).to(_KIND), scale)


def float8_linear(x: Tensor, weight: Float8) -> Tensor:
    """Multiply `x` (..., in), in float8, by the transpose of `weight` (out, in).

    Compiled, what computes `x` also writes it in float8. Sums are at least float32.
    """
    flat = quantised(x.reshape(-1, x.shape[-1]))
    numbers, scales = weight.numbers.t(), weight.scale.t()
    product = torch._scaled_mm(flat.numbers, numbers, flat.scale, scales, out_dtype=x.dtype)
    return product.view(*x.shape[:-1], -1)


def float8_of(module: Any) -> Float8:
    """The float8 weight that a module has now."""
    return Float8(getattr(module, _NUMBERS), getattr(module, _SCALE))


def float8_places(transformer: nn.Module) -> Iterator[tuple[Any, str]]:
    """The modules whose weights have a copy in float8, and the name of those weights.

    They are the products whose work grows with the image, but for the first and the last layer.
    """
    blocks: Any = getattr(transformer, "transformer_blocks", ())
    for block in blocks:
        yield block.attn1, "qkv"
        for layer in (
            block.attn1.to_out[0], block.attn2.to_q, block.attn2.to_out[0], block.ff.net[0].proj,
            block.ff.net[2],
        ):  # fmt: skip
            yield layer, "weight"


@torch.no_grad()
def keep_float8(transformer: nn.Module) -> None:
    """Give the modules of `float8_places` their weights in float8."""
    for module, name in float8_places(transformer):
        for part, value in _parts(getattr(module, name)):
            setattr(module, part, value)


@torch.inference_mode(mode=False)
@torch.no_grad()
def add_float8(merged: MutableMapping[tuple[nn.Module, str], Tensor], transformer: Any) -> None:
    """Round merged weights, by module and name, too, if the transformer keeps float8."""
    for module, name in float8_places(transformer):
        if (module, name) in merged and hasattr(module, _NUMBERS):
            for part, value in _parts(merged[module, name]):
                merged[module, part] = value


def float8_bytes(transformer: nn.Module) -> int:
    """Memory of the weights in float8."""
    return sum(
        getattr(module, part).nbytes
        for module, _ in float8_places(transformer)
        for part in (_NUMBERS, _SCALE)
        if hasattr(module, part)
    )


def _parts(weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    rounded = quantised(weight.detach().flatten(0, -2))
    yield from ((_NUMBERS, rounded.numbers), (_SCALE, rounded.scale))


def float8_fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a device cannot multiply float8 with results in `dtype`; None if it can."""
    x = torch.ones(16, 16, device=device, dtype=dtype)
    try:
        found = float8_linear(x, quantised(x)).sum().item()
    except (RuntimeError, ValueError) as exc:  # also what a device has no kernel for
        return (str(exc).splitlines() or [type(exc).__name__])[0]
    return None if found == 16**3 else f"16 x 16 ones give {found:g}"
