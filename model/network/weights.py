"""Loads weights into planned modules, straight from memory-mapped files to the device.

At most one tensor of a file is in host memory at a time, besides the loaded weights.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.files.safetensors_header import StoredTensor
from model.files.stored_weights.float8 import bfloat16_codes
from model.files.stored_weights.quantised import is_float8
from model.network.architectures import ModulePlan

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_CHUNK = 1 << 22


def load_weights(plan: ModulePlan, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a planned module's weights in `dtype`, frozen and in evaluation mode.

    Raises:
        CheckpointError: a weight is not finite in `dtype`; names file and key.
    """
    return _loaded(plan, device, lambda tensor: dtype)


def load_weights_for_float32(plan: ModulePlan, device: torch.device) -> Any:
    """Load a module that computes in float32 but keeps its matrices in the file's precision.

    For bfloat16 files this takes half the memory of float32 weights and gives the same bits,
    because conversion to float32 is exact.
    """
    return _loaded(plan, device, lambda tensor: tensor.dtype if tensor.ndim > 1 else torch.float32)


def _loaded(plan: ModulePlan, device: torch.device, dtype_of: Any) -> Any:
    module = plan.module
    wanted = {name: weight.shape for name, weight in module.state_dict().items()}
    by_place = sorted(plan.stored.items(), key=lambda entry: (entry[1].path, entry[1].offset))
    weights = {}
    for path, entries in groupby(by_place, key=lambda entry: entry[1].path):
        with map_file(path) as mapping:
            for name, stored in entries:
                value = stored_values(mapping, stored)
                if value.ndim > len(wanted[name]):
                    value = value[:, :, -1]  # of a single frame only the last tap has an effect
                # The slice drops the padding mask's patch columns; other weights stay whole. It is
                # copied, because the file may be replaced while the module is in use.
                cut = value[tuple(map(slice, wanted[name]))]
                weights[name] = cut.to(device, dtype_of(value), copy=True)
                if not torch.isfinite(weights[name]).all():
                    raise CheckpointError(f"{path}: {stored.key} has numbers that are not finite")
                del value, cut
                release_pages(mapping, stored)
    module.load_state_dict(weights, strict=True, assign=True)
    module.to(device).requires_grad_(requires_grad=False).eval()
    return module


def read_dropped_columns(plan: ModulePlan, name: str, device: torch.device) -> Tensor | None:
    """Read the columns of a weight that loading drops, float32; None if there are none."""
    stored, columns = plan.stored[name], plan.module.state_dict()[name].shape[1]
    if stored.shape[1] == columns:
        return None
    with map_file(stored.path) as mapping:
        value = stored_values(mapping, stored)
        rest = value[:, columns:].to(device, torch.float32, copy=True)
        del value
    return rest


@contextmanager
def map_file(path: Path) -> Iterator[mmap.mmap]:
    """Map a whole file into memory for reading."""
    try:
        # Private and writable, because torch requires writable memory. Nothing writes to it.
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapping,
        ):
            yield mapping
    except OSError as exc:
        raise CheckpointError(f"cannot read {path}: {exc.strerror}") from exc


def stored_values(mapping: mmap.mmap, stored: StoredTensor) -> Tensor:
    """The values of a tensor: a view of the mapped bytes. Delete it before the mapping is closed.

    Float8 weights are widened to bfloat16, in new memory.
    """
    if is_float8(stored):
        return _widened(mapping, stored)
    dtype = _DTYPES[stored.dtype]
    flat = torch.frombuffer(mapping, dtype=dtype, count=stored.count, offset=stored.offset)
    return flat.view(stored.shape)


def _widened(mapping: mmap.mmap, stored: StoredTensor) -> Tensor:
    codes = torch.tensor(bfloat16_codes(stored.dtype, stored.scale), dtype=torch.uint16)
    values = codes.view(torch.bfloat16)
    data = torch.frombuffer(mapping, dtype=torch.uint8, count=stored.count, offset=stored.offset)
    wide = torch.empty(stored.count, dtype=torch.bfloat16)
    for start in range(0, stored.count, _CHUNK):
        part = slice(start, start + _CHUNK)
        wide[part] = values.index_select(0, data[part].int())
    return wide.view(stored.shape)


def release_pages(mapping: mmap.mmap, stored: StoredTensor) -> None:
    """Release the mapped pages of a tensor, which count as memory of this process."""
    first = stored.offset - stored.offset % mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, first, stored.offset + stored.size - first)
