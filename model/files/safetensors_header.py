"""Reads and writes the headers of safetensors files: names, shapes, offsets and metadata.

Refuses pickles without reading them, and every file whose size differs from its header.
Format: https://github.com/safetensors/safetensors#format. Does not need torch.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import CheckpointError

SUFFIX = ".safetensors"
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
}  # fmt: skip
"""Bytes per value. Formats below one byte are not supported."""

_NUMBER_CODES = {
    "F64": "<d", "F32": "<f", "F16": "<e",
    "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B", "BOOL": "<?",
}  # fmt: skip
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_TOO_LARGE = 2**63
_MAX_AXES = 32
_MAX_SHOWN = 200
_SHOWN_KEYS = 5
_PICKLED = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
_RUNS_CODE = "pickled checkpoints can run code and are refused"
_IS_GGUF = "is a GGUF file; its quantised weights are not supported"
_LOOKS_LIKE = (
    (b"PK\x03\x04", f"is a zip archive, as torch.save writes it; {_RUNS_CODE}"),
    *((bytes([0x80, n]), f"is a pickle; {_RUNS_CODE}") for n in range(2, 6)),
    (b"GGUF", _IS_GGUF),
    (b"version https://git-lfs", "is a Git LFS pointer; the weights were not downloaded"),
    (b"<", "is a web page or XML; the download went wrong"),
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in its file. `offset`, from the start of the file, and `size` are in bytes.

    `scale` is the factor of float8 weights.
    """

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    scale: float = 1.0

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file. `size` is the size of the whole file in bytes."""

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    size: int


def read_header(path: Path, *, max_header_bytes: int = _MAX_HEADER_BYTES) -> Header:
    """Read the header of a safetensors file, without the weights.

    Raises:
        CheckpointError: the file is missing, a pickle, truncated or not a safetensors file.
    """
    _require_suffix(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES)
            length = int.from_bytes(start, "little")
            if len(start) < _LENGTH_BYTES or length > min(max_header_bytes, size - _LENGTH_BYTES):
                raise CheckpointError(f"{path} {_what_it_is(start + file.read(16))}")
            text = file.read(length)
    except OSError as exc:
        raise CheckpointError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        entries = json.loads(text, object_pairs_hook=_without_repeats)
        metadata = _metadata(entries.pop("__metadata__", {}))
        tensors = {
            key: _tensor(path, key, entry, first=_LENGTH_BYTES + length)
            for key, entry in entries.items()
        }
        _require_no_gaps(tensors.values(), first=_LENGTH_BYTES + length, end=size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise CheckpointError(f"{path} is truncated or not a safetensors file: {exc}") from exc
    return Header(path, tensors, metadata, size)


def read_bytes(tensor: StoredTensor) -> bytes:
    """The bytes of a tensor's values.

    Raises:
        CheckpointError: the file cannot be read or has become shorter.
    """
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.offset)
            data = file.read(tensor.size)
    except OSError as exc:
        raise CheckpointError(f"cannot read {tensor.path}: {exc.strerror}") from exc
    if len(data) < tensor.size:
        raise CheckpointError(f"{tensor.path} ended while it was read")
    return data


def read_number(tensor: StoredTensor) -> float:
    """The value of a tensor of one number.

    Raises:
        CheckpointError: the file cannot be read, or the tensor is of another type or size.
    """
    code = "<f" if tensor.dtype == "BF16" else _NUMBER_CODES.get(tensor.dtype)
    if code is None or tensor.count != 1:
        raise CheckpointError(f"{tensor.key} ({tensor.dtype}, {tensor.shape}) is not one number")
    # A bfloat16 number is the upper half of the float32 number.
    data = bytes(2 * (tensor.dtype == "BF16")) + read_bytes(tensor)
    return float(struct.unpack(code, data)[0])


def encode_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> bytes:
    """Encode the header of a file with these tensors (key, dtype, shape), in this order."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * DTYPE_BYTES[dtype]
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # aligns the tensors
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def first_keys(keys: Sequence[str]) -> str:
    """The first keys, for a message, and how many more there are."""
    shown = ", ".join(key[:_MAX_SHOWN] for key in keys[:_SHOWN_KEYS])
    more = len(keys) - _SHOWN_KEYS
    return shown if more <= 0 else f"{shown} and {more} more"


def _require_suffix(path: Path) -> None:
    if path.suffix.lower() in _PICKLED:
        raise CheckpointError(f"{path} is named like a pickle; {_RUNS_CODE}")
    if path.suffix.lower() == ".gguf":
        raise CheckpointError(f"{path} {_IS_GGUF}")
    if path.suffix.lower() != SUFFIX:
        raise CheckpointError(f"{path} is not a {SUFFIX} file; other formats are not read")


def _what_it_is(start: bytes) -> str:
    for magic, what in _LOOKS_LIKE:
        if start.startswith(magic):
            return what
    return "is truncated or not a safetensors file: its header does not fit into it"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header names a key twice")
    return found


def _metadata(entries: Any) -> dict[str, str]:
    if entries is None:  # the safetensors library reads null as no metadata
        return {}
    if not all(isinstance(value, str) for value in entries.values()):
        raise ValueError("its metadata is not all text")
    return dict(entries)


def _tensor(path: Path, key: str, entry: Any, *, first: int) -> StoredTensor:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(type(number) is int and 0 <= number < _TOO_LARGE for number in (*shape, begin, end)):
        raise ValueError(f"{key[:_MAX_SHOWN]} has a shape or offset that is not a whole number")
    if len(shape) > _MAX_AXES:
        raise ValueError(f"{key[:_MAX_SHOWN]} has {len(shape)} axes")
    expected = math.prod(shape) * DTYPE_BYTES.get(dtype, 0)
    if end < begin or (dtype in DTYPE_BYTES and expected != end - begin):
        raise ValueError(f"{key[:_MAX_SHOWN]} {dtype} {shape} does not take {end - begin} bytes")
    return StoredTensor(path, key, dtype, shape, first + begin, end - begin)


def _require_no_gaps(tensors: Iterable[StoredTensor], *, first: int, end: int) -> None:
    """Check that every byte after the header belongs to one tensor, up to the end of the file."""
    position = first
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != position:
            key = tensor.key[:_MAX_SHOWN]
            raise ValueError(f"{key} starts at byte {tensor.offset}, not {position}")
        position += tensor.size
    if position != end:
        raise ValueError(f"its tensors end at byte {position}, the file at {end}")
