"""Merges LoRA files into new weights and biases for the modules that they change.

Sums are float32 on the weights' device and rounded once at the end. The original weights are not
modified.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from model.files.lora.plan import LoraChange
from model.files.lora.shapes import without_kernel
from model.files.lora.targets import LoraPart, LoraTarget, make_target
from model.network.lora_deltas import DELTAS, add_delta
from model.network.weight_tree import Float32Tree

MergedValues = dict[tuple[nn.Module, str], Tensor]
"""New values by module and name: a parameter's ("weight" or "bias"), or "qkv" of an attention."""


OriginalValue = Callable[[Any, str], Tensor]
"""Returns a module's own parameter by name, whatever is active in the module now."""


class LoraModules(Protocol):
    """The parts of a loaded checkpoint that LoRAs may change, that is all but the VAE."""

    @property
    def transformer(self) -> nn.Module: ...
    @property
    def conditioner(self) -> nn.Module: ...
    @property
    def text_encoder(self) -> nn.Module: ...
    @property
    def mask_columns(self) -> Tensor | None: ...


@dataclass(frozen=True, slots=True)
class MergeInput:
    """One file to merge: the changes that it makes, and its strength."""

    path: Path
    changes: Sequence[LoraChange]
    strength: float


def list_modules(models: LoraModules) -> Iterator[tuple[LoraTarget, nn.Module]]:
    """Every module of the model with a weight that LoRAs may change."""
    parts: dict[LoraPart, nn.Module] = {
        "transformer": models.transformer,
        "adapter": models.conditioner,
        "text_encoder": models.text_encoder,
    }
    for part, whole in parts.items():
        for name, module in whole.named_modules():
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if isinstance(weight, nn.Parameter) and weight.ndim in (1, 2):
                rows = len(bias) if isinstance(bias, nn.Parameter) else None
                yield make_target(part, name, tuple(weight.shape), rows), module


def merge_files(
    files: Sequence[MergeInput],
    modules: Mapping[LoraTarget, nn.Module],
    *,
    mask_columns: Tensor | None,
    original: OriginalValue = getattr,
    dtype: torch.dtype = torch.float32,
) -> MergedValues:
    """Return the new value of every weight and bias that the files change.

    `mask_columns` are the padding mask's columns of the patch embedding, if the checkpoint has
    them. `original` is needed if another set may be active in the modules. Sums are computed in
    `dtype`.
    """
    with ExitStack() as opened:
        steps: dict[tuple[LoraTarget, str], list[_MergeStep]] = defaultdict(list)
        for file in files:
            tensors = opened.enter_context(safe_open(file.path, framework="pt"))
            for change in file.changes:
                parameter = "bias" if change.method == "bias" else "weight"
                steps[change.target, parameter].append(_MergeStep(change, tensors, file.strength))
        return {
            (modules[target], parameter): _merged(
                original(modules[target], parameter),
                of_target,
                is_float32=isinstance(modules[target], Float32Tree),
                dropped=mask_columns if target.dropped_columns else None,
                dtype=dtype,
            )
            for (target, parameter), of_target in steps.items()
        }


@torch.inference_mode(mode=False)
@torch.no_grad()
def add_stacked(
    merged: MergedValues, attentions: Iterable[Any], original: OriginalValue = getattr
) -> MergedValues:
    """Stack the projections of every self-attention that changes, as the network reads them."""
    for attention in attentions:
        layers = (attention.to_q, attention.to_k, attention.to_v)
        if any((layer, "weight") in merged for layer in layers):
            weights = [merged.get((n, "weight"), original(n, "weight")) for n in layers]
            stacked = torch.stack([weight.detach() for weight in weights])
            merged[attention, "qkv"] = stacked
            for layer, weight in zip(layers, stacked, strict=True):
                merged[layer, "weight"] = nn.Parameter(weight, requires_grad=False)
    return merged


@dataclass(frozen=True, slots=True)
class _MergeStep:
    """One file's change of one parameter, with the opened file and the strength."""

    change: LoraChange
    file: Any
    strength: float

    def tensors(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors of the change by role."""
        found = {
            # Numbers are read on the CPU, because that does not wait for the device.
            role: self.file.get_tensor(key).to(
                "cpu" if role in ("alpha", "on_input") else device, dtype
            )
            for role, key in self.change.keys.items()
        }
        if self.change.alpha is not None:
            found["alpha"] = torch.tensor(self.change.alpha, dtype=torch.float64)
        if self.change.rank is not None:
            found["rank"] = torch.tensor(self.change.rank, dtype=torch.float64)
        rotation = self.change.rotation
        if rotation is not None and rotation.series is not None:
            found["series"] = torch.tensor(rotation.series, dtype=torch.float64)
        if rotation is not None and rotation.limit is not None:
            found["limit"] = torch.tensor(rotation.limit, dtype=torch.float64)
        return {
            role: tensor.reshape(without_kernel(role, tuple(tensor.shape)))
            for role, tensor in found.items()
        }


@torch.inference_mode(mode=False)
@torch.no_grad()
def _merged(
    original: Tensor,
    steps: Sequence[_MergeStep],
    *,
    is_float32: bool,
    dropped: Tensor | None,
    dtype: torch.dtype,
) -> nn.Parameter:
    """The parameter's value after all changes, rounded once to the parameter's dtype.

    With `is_float32`, because the module computes so, it keeps the dtype of the sums.
    """
    value = original.to(dtype, copy=True)
    for step in steps:
        tensors = step.tensors(original.device, dtype)
        columns, wide = original.shape[-1], step.change.columns or 0
        if value.ndim == 2 and wide > columns:
            # The change also covers the dropped columns, which count in the norms of DoRA.
            rest = value.new_zeros(len(value), wide - columns)
            value = torch.cat([value, rest if dropped is None else dropped.to(dtype)], dim=1)
        delta = DELTAS[step.change.method](value, tensors)
        add_delta(value, delta, tensors, strength=step.strength)
        value = value[..., :columns]
    kept = dtype if is_float32 or dtype == torch.float64 else original.dtype
    return nn.Parameter(value.to(kept).contiguous(), requires_grad=False)
