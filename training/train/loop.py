"""Shared by both training loops: replicas, learning rate, moving average, saving, resuming."""

import csv
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.optim import Optimizer

EMA_DECAY = 0.999
CLIP_NORM = 1.0


def run_replicas(target: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run `target(rank, processes, *arguments)` in single-thread processes connected by gloo.

    Two processes with one thread each are faster than one process with two threads, because
    operators need no barriers.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        spawn(  # type: ignore[no-untyped-call]
            _replica, (target, arguments, processes, store), nprocs=processes
        )


def _replica(
    rank: int, target: Callable[..., None], arguments: tuple[Any, ...], processes: int, store: str
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=processes
    )
    target(rank, processes, *arguments)
    distributed.destroy_process_group()


class Clock:
    """Wall and CPU time of a stage over all its runs, in seconds."""

    def __init__(self, limit: float, spent: float = 0.0, cpu_spent: float = 0.0):
        self.limit = limit
        self._start = time.monotonic() - spent
        self._cpu_start = time.process_time() - cpu_spent

    @property
    def seconds(self) -> float:
        """Wall seconds spent in this stage."""
        return time.monotonic() - self._start

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this replica."""
        return time.process_time() - self._cpu_start

    @property
    def progress(self) -> float:
        """Elapsed share of the stage; 1 or more means that it is over."""
        return self.seconds / self.limit


class SharedGradients:
    """The gradients of all parameters as one vector, averaged over replicas.

    The last element is the replicas' progress, so that all use the same learning rate and stop
    after the same step although their clocks differ.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], processes: int):
        self._processes = processes
        trained = [p for p in parameters if p.requires_grad]
        sizes = [p.numel() for p in trained]
        self._vector = torch.zeros(sum(sizes) + 1)
        for parameter, part in zip(trained, torch.split(self._vector[:-1], sizes), strict=True):
            parameter.grad = part.view_as(parameter)

    def average(self, progress: float) -> float:
        """Average over replicas and clip to norm 1; returns the common progress."""
        self._vector[-1] = progress
        if self._processes > 1:
            distributed.all_reduce(self._vector)
            self._vector /= self._processes
        norm = float(self._vector[:-1].norm())
        if not math.isfinite(norm):
            raise FloatingPointError(f"gradient norm is {norm}")
        if norm > CLIP_NORM:
            self._vector[:-1] *= CLIP_NORM / norm
        return float(self._vector[-1])

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._vector.zero_()


def learning_rate_factor(step: int, progress: float, *, warm_up: int, hold: float) -> float:
    """Linear warm-up by steps, constant until `hold`, then a cosine to 1 % by progress."""
    rise = min(1.0, (step + 1) / warm_up)
    fall = max(0.0, min(1.0, (progress - hold) / (1 - hold)))
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Multiply the peak rate of every group by the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class Average:
    """Exponential moving average of a module's parameters."""

    def __init__(self, module: nn.Module):
        self.state = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module; early steps move further, to forget the initial weights."""
        weight = 1 - min(EMA_DECAY, (step + 1) / (step + 10))
        names = list(self.state)
        parameters = dict(module.named_parameters())
        torch._foreach_lerp_([self.state[n] for n in names], [parameters[n] for n in names], weight)


def save_state(
    path: Path, module: nn.Module, average: Average, optimizer: Optimizer, **facts: float
) -> None:
    """Write everything needed to resume, atomically."""
    tensors = {f"module/{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.state.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v for k, v in slots.items()}
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"facts": json.dumps(facts)})
    part.replace(path)


def load_state(
    path: Path, module: nn.Module, average: Average, optimizer: Optimizer
) -> dict[str, float]:
    """Load what `save_state` wrote into the given objects; returns its facts."""
    slots: dict[int, dict[str, Tensor]] = {}
    state: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        facts: dict[str, float] = json.loads(file.metadata()["facts"])
        for key in file.keys():  # noqa: SIM118 - safe_open is not a mapping
            kind, _, rest = key.partition("/")
            if kind == "module":
                state[rest] = file.get_tensor(key)
            elif kind == "average":
                average.state[rest] = file.get_tensor(key)
            else:
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = file.get_tensor(key)
    module.load_state_dict(state)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return facts


def load_average(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a saved state."""
    with safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith("average/")]  # noqa: SIM118
        return {key.removeprefix("average/"): file.get_tensor(key) for key in keys}


def write_row(path: Path, row: dict[str, float]) -> None:
    """Append one line to a CSV log; the first call writes the header."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
