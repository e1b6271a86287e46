"""Selects deterministic GPU kernels, and names devices.

The CPU kernels that the network uses are deterministic: they split their work only by shape and
number of threads.
"""

import os
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from model.errors import DeviceMissing
from model.files.cpu_threads import processor

CUBLAS_WORKSPACE = ":4096:8"
"""cuBLAS is deterministic only with a workspace of fixed size; this one is 32 MiB."""


_THREAD_ROUNDS = 7
_NEARLY_AS_FAST = 1.05
"""Fewer threads leave cores to the work beside the steps."""


def use_deterministic_kernels() -> None:
    """Make every kernel of this process deterministic. A kernel that cannot raises RuntimeError.

    Must be called before the first matrix product on the GPU, because cuBLAS reads its variable
    once. It applies to the whole process, because switching would recompile compiled kernels.
    Attention is deterministic in every backend if no gradients are computed.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)  # noqa: TID251 - not ours
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it selects kernels by their measured speed
    # Filling new memory only helps to find reads of uninitialised memory, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def find_device(name: str) -> torch.device:
    """The device of this name, such as cpu or cuda:1.

    Raises:
        DeviceMissing: the machine, or this build of torch, has none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise DeviceMissing(f"KIRAZURI_DEVICE={name}: {str(exc).splitlines()[0]}") from exc
    if device.type != "cuda":
        return device
    if torch.version.cuda is None:
        raise DeviceMissing(
            f"KIRAZURI_DEVICE={name}, but torch {torch.__version__} is a build without CUDA; for "
            "one with CUDA: make clean && make install TORCH_INDEX="
        )
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise DeviceMissing(
            f"KIRAZURI_DEVICE={name}, but torch {torch.__version__} finds {count} NVIDIA GPUs; "
            "`nvidia-smi` shows the driver and the GPUs"
        )
    return device


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the processor with its instruction set as PyTorch uses it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()} ({torch.backends.cpu.get_cpu_capability()})"


def time_threads(
    run: Callable[[], object], most: int, *, seconds: float = 0.8
) -> Mapping[int, float]:
    """The shortest time of `run` with 1, 2, 4 … and `most` CPU threads, each in turn.

    Every number is tried once, however slow the machine is just now, and then again for as long as
    `seconds`. The number of threads stays that of the last try.
    """
    began, found = time.perf_counter(), dict[int, float]()
    counts = sorted({most, *(1 << power for power in range(most.bit_length()))})
    run()  # whatever is computed once
    for _ in range(_THREAD_ROUNDS):
        for count in counts:
            if len(found) == len(counts) and time.perf_counter() - began > seconds:
                return found
            torch.set_num_threads(count)
            start = time.perf_counter()
            run()
            found[count] = min(found.get(count, float("inf")), time.perf_counter() - start)
    return found


def fewest_fast(times: Mapping[int, float]) -> int:
    """The smallest number of threads that takes at most 5 % longer than the fastest."""
    limit = _NEARLY_AS_FAST * min(times.values())
    return min(count for count, seconds in times.items() if seconds <= limit)


class Readback:
    """A few numbers of a tensor on their way to the host, where reading them waits for no more."""

    def __init__(self, tensor: Tensor) -> None:
        self._computed: torch.cuda.Event | None = None
        if tensor.is_cuda:
            tensor = tensor.to("cpu", non_blocking=True)
            self._computed = torch.cuda.current_stream().record_event()
        self._tensor = tensor

    def read(self) -> list[bool]:
        """The numbers. Waits for the work that computes them, and for none that was begun later."""
        if self._computed is not None:
            self._computed.synchronize()
        numbers: list[bool] = self._tensor.tolist()
        return numbers


def use_on_this_stream(*tensors: Tensor) -> None:
    """Announce that this stream of a GPU reads tensors that another one has computed.

    Their memory is not given away before this stream is done with what it was asked for so far
    when they die.
    """
    for tensor in tensors:
        if tensor.is_cuda:
            tensor.record_stream(torch.cuda.current_stream(tensor.device))


def memory_limit(device: torch.device, gigabytes: float) -> int | None:
    """Bytes that this process may use of the device: what is stated, else all of a GPU.

    None means no limit that is known. PyTorch refuses to allocate more than what is stated.
    """
    stated = int(gigabytes * 1e9) or None
    if device.type != "cuda":
        return stated
    _, size = torch.cuda.mem_get_info(device)
    if stated is None or stated >= size:
        return size
    torch.cuda.set_per_process_memory_fraction(stated / size, device)
    return stated


def empty_cache(device: torch.device) -> None:
    """Give the memory that PyTorch keeps for reuse back to the device."""
    release = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if release is not None:
        release()
