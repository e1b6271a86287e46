"""Holds a GPU to algorithms that give the same bits for the same work, and names devices.

On the CPU there is nothing to hold: the kernels that the network uses split their work by shape
and number of threads alone.
"""

import os
import platform
import re
from pathlib import Path

import torch

CUBLAS_WORKSPACE = ":4096:8"
"""cuBLAS repeats itself only with a workspace of fixed size; this one is 32 MiB."""


def use_deterministic_kernels() -> None:
    """Make every kernel of this process repeat itself; one that cannot raises RuntimeError.

    Needed before the first matrix product on the GPU, since cuBLAS reads its variable once. For
    the whole process, because switching would make compiled kernels be compiled again. Attention
    is repeatable in every backend as long as no gradients are taken.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)  # noqa: TID251 - not ours
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it would choose kernels by a race
    # Filling fresh memory finds bugs and costs time; nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the processor with the instructions that PyTorch uses of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        about = ""  # not Linux
    if found := re.search(r"^model name\s*:\s*(.+)$", about, re.MULTILINE):
        name = found[1].strip()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
