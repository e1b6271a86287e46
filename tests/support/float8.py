"""Decodes float8 by the OCP definition, rounds to bfloat16, and writes float8 checkpoints.

Written with numpy from the definitions of the formats, not with the product's code.
"""

import json
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors = dict[str, Tensor]


def decode_float8(data: NDArray[numpy.uint8], *, mantissa_bits: int) -> NDArray[numpy.float64]:
    """Decode E4M3 (3 mantissa bits) or E5M2 (2).

    The value is (-1)^s * 2^(e - bias) * 1.m, or (-1)^s * 2^(1 - bias) * 0.m if e is 0.
    E4M3 has NaN at s.1111.111 and no infinity. E5M2 has infinity at s.11111.00 and NaN above.
    """
    exponent_bits = 7 - mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    sign = numpy.where(data & 0x80, -1.0, 1.0)
    exponent = ((data & 0x7F) >> mantissa_bits).astype(numpy.int64)
    fraction = (data & (2**mantissa_bits - 1)) / 2**mantissa_bits
    normal = 2.0 ** (exponent - bias) * (1 + fraction)
    values = numpy.where(exponent == 0, 2.0 ** (1 - bias) * fraction, normal)
    if mantissa_bits == 3:
        values[data & 0x7F == 0x7F] = numpy.nan
    else:
        values[data & 0x7F == 0x7C] = numpy.inf
        values[data & 0x7F > 0x7C] = numpy.nan
    signed: NDArray[numpy.float64] = sign * values
    return signed


def round_to_bfloat16(values: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    """Round to the nearer of the two neighbours with 8 significant bits; ties to the even one."""
    low = (values.view(numpy.uint32) & numpy.uint32(0xFFFF0000)).view(numpy.float32)
    high = (low.view(numpy.uint32) + numpy.uint32(0x10000)).view(numpy.float32)
    with numpy.errstate(all="ignore"):
        to_low = numpy.abs(values.astype(numpy.float64) - low)
        to_high = numpy.abs(high.astype(numpy.float64) - values)
    is_even = low.view(numpy.uint32) & 0x10000 == 0
    takes_low = (to_low < to_high) | ((to_low == to_high) & is_even)
    return numpy.where(numpy.isfinite(values) & ~takes_low, high, low)


def expected_weight(stored: Tensor, scale: float = 1.0) -> Tensor:
    """The bfloat16 weight of a float8 tensor."""
    data = stored.view(torch.uint8).numpy()
    bits = 3 if stored.dtype == torch.float8_e4m3fn else 2
    with numpy.errstate(all="ignore"):
        exact = decode_float8(data, mantissa_bits=bits) * numpy.float64(scale)
        rounded = round_to_bfloat16(exact.astype(numpy.float32))
    return torch.from_numpy(rounded).bfloat16()


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float8 tensor with its scale, float32 and one value, as its largest value fills E4M3."""
    scale = weight.float().abs().amax() / 448
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


def scaled(
    tensors: Tensors, *, layout: str, names: set[str], marker: str = ""
) -> tuple[Tensors, Tensors, dict[str, str]]:
    """Store the weights `names` as scaled float8 in one of ComfyUI's layouts.

    `layout` is "old" (with `marker` as the prefix of `scaled_fp8`), "new" or "metadata". Returns
    the stored tensors, the weights that they mean, and the file's metadata.
    """
    stored, meant = dict(tensors), dict(tensors)
    layers: dict[str, Any] = {}
    for name in names:
        layer = name.removesuffix(".weight")
        stored[name], scale = quantise(tensors[name])
        meant[name] = expected_weight(stored[name], float(scale))
        weight, given = ("scale_weight", "scale_input") if layout == "old" else (
            "weight_scale", "input_scale",
        )  # fmt: skip
        stored[f"{layer}.{weight}"] = scale
        stored[f"{layer}.{given}"] = torch.tensor(3.0)
        layers[layer] = {"format": "float8_e4m3fn"}
        if layout == "new":
            text = json.dumps(layers[layer] | {"full_precision_matrix_mult": True})
            stored[f"{layer}.comfy_quant"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
    if layout == "old":
        stored[f"{marker}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    metadata = {"modelspec.title": "Small"}
    if layout == "metadata":
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    return stored, meant, metadata
