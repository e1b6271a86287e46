"""Measures the time to switch LoRAs: merging a set, returning to a cached one, removing it.

Run by `kirazuri bench lora`. The network is that of the shipped checkpoint, or one of the
published size with dummy weights. Each time is one call of the engine's `LoraSwitch`.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.bench.counts import PUBLISHED
from model.bench.report import add_json_option, print_report
from model.card import load_card
from model.files.keymap import transformer_to_original
from model.files.lora.folder import LoraFolder
from model.files.weight_shapes import transformer_shapes
from model.network.load import load_components
from model.network.lora_switch import LoraSwitch
from model.network.weight_tree import WeightTree
from model.resolved_request import LoraSet, ResolvedLora

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_EXAMPLE = 0.01


@dataclass(frozen=True)
class _Transformer:
    """A checkpoint with only a transformer."""

    transformer: nn.Module
    conditioner: nn.Module = field(default_factory=nn.Module)
    text_encoder: nn.Module = field(default_factory=nn.Module)
    mask_columns: Tensor | None = None


def main() -> None:
    """Parse the command line, measure and print the times."""
    parser = argparse.ArgumentParser(prog="kirazuri bench lora", description=__doc__)
    parser.add_argument(
        "--size", choices=["tiny", "full"], default="tiny", help="size of the network"
    )
    parser.add_argument("--method", choices=list(_FACTORS), default="lora")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(_DTYPES), default="bfloat16")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), _DTYPES[options.precision]
    models = full_size(device, dtype) if options.size == "full" else tiny(device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "example.safetensors")
        write_example(path, models.transformer, method=options.method, rank=options.rank)
        rows = time_merging(models, path, rounds=options.rounds, device=device)
        size = path.stat().st_size
    parameters = sum(weight.numel() for weight in models.transformer.parameters())
    conditions = (
        f"{parameters / 1e6:.1f} M parameters in {options.precision} on {options.device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; {options.method} of rank "
        f"{options.rank} on every linear layer, {size / 1e6:.1f} MB"
    )
    print_report(conditions, rows, command="lora", json_path=options.json)


def tiny(device: torch.device, dtype: torch.dtype) -> _Transformer:
    """Load the transformer of the shipped checkpoint."""
    parts = load_components(load_card("kirazuri-tiny"), None, device=device, dtype=dtype)
    return _Transformer(parts.transformer)


def full_size(device: torch.device, dtype: torch.dtype) -> _Transformer:
    """Build a transformer of the published size: 28 blocks of width 2048."""
    module = WeightTree(transformer_shapes(PUBLISHED))
    weights = {
        name: torch.full(weight.shape, _EXAMPLE, dtype=dtype, device=device)
        for name, weight in module.state_dict().items()
    }
    module.load_state_dict(weights, assign=True)
    module.requires_grad_(requires_grad=False)
    return _Transformer(module)


def _lora(rows: int, columns: int, rank: int) -> dict[str, Tensor]:
    return {"lora_down.weight": _dummy(rank, columns), "lora_up.weight": _dummy(rows, rank)}


def _lokr(rows: int, columns: int, rank: int) -> dict[str, Tensor]:
    """A whole factor of 8x8 or less, and a split one."""
    a, b = (next(d for d in (8, 4, 2, 1) if side % d == 0) for side in (rows, columns))
    return {
        "lokr_w1": _dummy(a, b),
        "lokr_w2_a": _dummy(rows // a, rank),
        "lokr_w2_b": _dummy(rank, columns // b),
    }


def _dora(rows: int, columns: int, rank: int) -> dict[str, Tensor]:
    return {**_lora(rows, columns, rank), "dora_scale": _dummy(rows, 1)}


_FACTORS: dict[str, Callable[[int, int, int], dict[str, Tensor]]] = {
    "lora": _lora,
    "lokr": _lokr,
    "dora": _dora,
}


def _dummy(*shape: int) -> Tensor:
    return torch.full(shape, _EXAMPLE, dtype=torch.bfloat16)


def write_example(path: Path, transformer: nn.Module, *, method: str, rank: int) -> None:
    """Write a file in kohya's layout that changes every linear layer."""
    tensors: dict[str, Tensor] = {}
    for name, weight in transformer.named_parameters():
        if weight.ndim == 2:
            original = transformer_to_original(name).removesuffix(".weight")
            rows, columns = weight.shape
            layer_tensors = {**_FACTORS[method](rows, columns, rank), "alpha": torch.tensor(1.0)}
            stem = f"lora_unet_{original.replace('.', '_')}"
            tensors |= {f"{stem}.{end}": tensor for end, tensor in layer_tensors.items()}
    save_file(tensors, path)


def time_merging(
    models: _Transformer, path: Path, *, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """Time every type of switch; returns a row with the shortest and the longest time of each."""
    folder = LoraFolder(path.parent)
    folder.refresh()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    one, other = (
        (ResolvedLora(name=path.stem, weight=weight, sha256=sha256),) for weight in (1.0, 0.5)
    )
    seconds: dict[str, list[float]] = {}

    def timed(name: str, loras: LoraSet) -> None:
        began = time.perf_counter()
        switch.use_in_transformer(loras)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.setdefault(name, []).append(time.perf_counter() - began)

    switch = LoraSwitch(models, folder, cached_sets=1)
    began = time.perf_counter()
    switch.split(one)
    seconds["checking a new file"] = [time.perf_counter() - began]
    for _ in range(rounds):
        timed("merging a set", one)
        timed("removing it", ())
        timed("returning to it", one)
        switch.use_in_transformer(
            other
        )  # evicts the set from the cache, so that the next round merges it again
    switch.use_in_transformer(())
    return [
        {"change": name, "shortest s": min(values), "longest s": max(values)}
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    main()
