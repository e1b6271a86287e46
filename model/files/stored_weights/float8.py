"""Widens float8 weights to bfloat16.

Formats: OCP 8-bit Floating Point Specification (OFP8), revision 1.0: E4M3 has no infinities and
one NaN per sign, E5M2 follows IEEE 754. Does not need torch.
"""

import math
from array import array

FLOAT8_NAMES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""The float8 dtypes that are read, and their names in PyTorch and ComfyUI."""

_MANTISSA_BITS = {"F8_E4M3": 3, "F8_E5M2": 2}
_HALF_STEP = 0x7FFF


def bfloat16_codes(dtype: str, scale: float) -> list[int]:
    """The 16 bits of the bfloat16 weight for each of the 256 bytes.

    The byte's value times `scale` is computed in float32 and rounded once, to nearest even.
    """
    # The products are exact in float64; the array rounds them to float32.
    products = array("f", [_value(byte, dtype) * scale for byte in range(256)])
    codes = []
    for product, bits in zip(products, array("I", products.tobytes()), strict=True):
        if math.isnan(product):
            codes.append(0x7FC0)
        else:
            codes.append(bits + _HALF_STEP + (bits >> 16 & 1) >> 16)
    return codes


def widen(data: bytes, codes: list[int]) -> bytearray:
    """Replace each byte by the two bytes (little-endian) of its code."""
    wide = bytearray(2 * len(data))
    wide[0::2] = data.translate(bytes(code & 0xFF for code in codes))
    wide[1::2] = data.translate(bytes(code >> 8 for code in codes))
    return wide


def _value(byte: int, dtype: str) -> float:
    mantissa_bits = _MANTISSA_BITS[dtype]
    steps = 1 << mantissa_bits
    exponent_bits = 7 - mantissa_bits
    bias = (1 << exponent_bits - 1) - 1
    exponent, mantissa = divmod(byte & 0x7F, steps)
    sign = -1.0 if byte & 0x80 else 1.0
    if dtype == "F8_E4M3" and byte & 0x7F == 0x7F:
        return math.nan
    if dtype == "F8_E5M2" and exponent == (1 << exponent_bits) - 1:
        return math.nan if mantissa else sign * math.inf
    if exponent == 0:
        return sign * math.ldexp(mantissa / steps, 1 - bias)
    return sign * math.ldexp(1 + mantissa / steps, exponent - bias)
