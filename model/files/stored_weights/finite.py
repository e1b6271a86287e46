"""Finds weights that are not finite or that vanish, by their bytes. Does not need torch or numpy.

A number is infinite or not a number if all bits of its exponent are set. It is zero or too small
for a normal number if none is set.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import BinaryIO

from model.files.safetensors_header import StoredTensor
from model.files.stored_weights.float8 import FLOAT8_NAMES, bfloat16_codes

_CHUNK_BYTES = 8_000_000
_FIRST_BYTES = 4096
_BFLOAT16_EXPONENT = 0x7F80
_EXPONENTS = {
    "F64": (8, 0x7F, 0xF0),
    "F32": (4, 0x7F, 0x80),
    "BF16": (2, 0x7F, 0x80),
    "F16": (2, 0x7C, 0x00),
}
"""For each type its bytes, and the exponent's bits in the last byte and in the one before."""


def first_not_finite(tensors: Iterable[StoredTensor]) -> StoredTensor | None:
    """The first tensor with a number that is not finite; None if there is none.

    Float8 weights are taken as they are after widening.

    Raises:
        OSError: a file cannot be read.
    """
    by_file = sorted(tensors, key=lambda stored: (stored.path, stored.offset))
    for path, of_file in groupby(by_file, key=lambda stored: stored.path):
        with path.open("rb") as file:
            for tensor in of_file:
                if _is_bad(file, tensor):
                    return tensor
    return None


def vanishes(tensor: StoredTensor) -> bool:
    """Whether every number is zero or subnormal, after widening. Stops at the first other one.

    Raises:
        OSError: the file cannot be read.
    """
    left, size = tensor.size, _FIRST_BYTES
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        while left > 0 and (data := file.read(min(left, size))):
            left -= len(data)
            size = _CHUNK_BYTES
            if _has_normal(data, tensor):
                return False
    return True


def _has_normal(data: bytes, tensor: StoredTensor) -> bool:
    if tensor.dtype in FLOAT8_NAMES:
        codes = bfloat16_codes(tensor.dtype, tensor.scale)
        return any(data.translate(bytes(bool(c & _BFLOAT16_EXPONENT) for c in codes)))
    if tensor.dtype not in _EXPONENTS:
        return True
    width, last_bits, before_bits = _EXPONENTS[tensor.dtype]
    return any(
        any(data[place::width].translate(bytes(bool(byte & bits) for byte in range(256))))
        for place, bits in ((width - 1, last_bits), (width - 2, before_bits))
    )


def _is_bad(file: BinaryIO, tensor: StoredTensor) -> bool:
    file.seek(tensor.offset)
    left = tensor.size
    bad = _float8_marks(tensor) if tensor.dtype in FLOAT8_NAMES else None
    if bad is None and tensor.dtype not in _EXPONENTS:
        return False
    while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
        left -= len(data)
        if bad is not None:
            if any(data.translate(bad)):
                return True
        elif _has_not_finite(data, *_EXPONENTS[tensor.dtype]):
            return True
    return False


def _float8_marks(tensor: StoredTensor) -> bytes:
    """A table that maps bytes whose bfloat16 value is not finite to 1, and others to 0."""
    codes = bfloat16_codes(tensor.dtype, tensor.scale)
    return bytes(int(code & _BFLOAT16_EXPONENT == _BFLOAT16_EXPONENT) for code in codes)


def _has_not_finite(data: bytes, width: int, last_bits: int, before_bits: int) -> bool:
    last = data[width - 1 :: width].translate(_marks(last_bits))
    before = data[width - 2 :: width].translate(_marks(before_bits))
    return bool(int.from_bytes(last, "little") & int.from_bytes(before, "little"))


def _marks(bits: int) -> bytes:
    """A table that maps bytes with all of these bits to 1, and others to 0."""
    return bytes(int(byte & bits == bits) for byte in range(256))
