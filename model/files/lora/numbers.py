"""Finds numbers in LoRA files that are not finite, by their bytes. Does not need torch or numpy.

A number is infinite or not a number if all bits of its exponent are set.
"""

from collections.abc import Iterable
from pathlib import Path

from model.files.safetensors_header import StoredTensor

_CHUNK_BYTES = 8_000_000
_EXPONENTS = {
    "F64": (8, 0x7F, 0xF0),
    "F32": (4, 0x7F, 0x80),
    "BF16": (2, 0x7F, 0x80),
    "F16": (2, 0x7C, 0x00),
}
"""For each type its bytes, and the exponent's bits in the last byte and in the one before."""


def first_not_finite(path: Path, tensors: Iterable[StoredTensor]) -> str | None:
    """The key of the first tensor with a number that is not finite; None if there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for tensor in sorted(tensors, key=lambda stored: stored.offset):
            if tensor.dtype not in _EXPONENTS:
                continue
            file.seek(tensor.offset)
            left = tensor.size
            while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
                left -= len(data)
                if _has_not_finite(data, *_EXPONENTS[tensor.dtype]):
                    return tensor.key
    return None


def _has_not_finite(data: bytes, width: int, last_bits: int, before_bits: int) -> bool:
    last = data[width - 1 :: width].translate(_marks(last_bits))
    before = data[width - 2 :: width].translate(_marks(before_bits))
    return bool(int.from_bytes(last, "little") & int.from_bytes(before, "little"))


def _marks(bits: int) -> bytes:
    """A table that maps bytes with all of these bits to 1, and others to 0."""
    return bytes(int(byte & bits == bits) for byte in range(256))
