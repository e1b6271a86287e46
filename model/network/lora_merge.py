"""Merges LoRA files into new weights for the linear layers that they change.

Sums are float32 on the weights' device and rounded once at the end. The original weights are not
modified.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from model.files.keymap import adapter_to_original, transformer_to_original
from model.files.lora_keys import LoraChange, LoraPart, LoraTarget
from model.network.lora_deltas import DELTAS, add_delta
from model.network.weights import Float32Linear

_PATCH_EMBED = "patch_embed.proj"
_PADDING_MASK_COLUMNS = 4
"""The patch columns of the padding mask, a channel that is always zero. Loading drops them."""


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


def linear_layers(models: LoraModules) -> Iterator[tuple[LoraTarget, nn.Linear]]:
    """Every linear layer of the model with its names and shape."""
    modules: dict[LoraPart, nn.Module] = {
        "transformer": models.transformer,
        "adapter": models.conditioner,
        "text_encoder": models.text_encoder,
    }
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                rows, columns = layer.weight.shape
                is_patch_embed = part == "transformer" and name == _PATCH_EMBED
                dropped = _PADDING_MASK_COLUMNS if is_patch_embed else 0
                original = _original_name(part, name)
                yield LoraTarget(part, name, original, (rows, columns), dropped), layer


def _original_name(part: LoraPart, module: str) -> str:
    if part == "text_encoder":
        return module
    to_original = transformer_to_original if part == "transformer" else adapter_to_original
    return to_original(f"{module}.weight").removesuffix(".weight")


def merge_files(
    files: Sequence[MergeInput],
    linears: Mapping[LoraTarget, nn.Linear],
    *,
    mask_columns: Tensor | None,
) -> dict[nn.Linear, Tensor]:
    """Return the new weight of every layer that the files change.

    `mask_columns` are the padding mask's columns of the patch embedding, if the checkpoint has
    them.
    """
    with ExitStack() as opened:
        steps: dict[LoraTarget, list[_MergeStep]] = defaultdict(list)
        for file in files:
            tensors = opened.enter_context(safe_open(file.path, framework="pt"))
            for change in file.changes:
                steps[change.target].append(_MergeStep(change, tensors, file.strength))
        return {
            linears[target]: _merged_weight(
                linears[target],
                of_target,
                dropped=mask_columns if target.dropped_columns else None,
            )
            for target, of_target in steps.items()
        }


@dataclass(frozen=True, slots=True)
class _MergeStep:
    """One file's change of one weight, with the opened file and the strength."""

    change: LoraChange
    file: Any
    strength: float


@torch.inference_mode(mode=False)
@torch.no_grad()
def _merged_weight(
    linear: nn.Linear, steps: Sequence[_MergeStep], *, dropped: Tensor | None
) -> nn.Parameter:
    """The layer's weight after all changes, summed in float32.

    It is rounded once to the layer's dtype, unless the layer computes in float32.
    """
    weight = linear.weight
    dtype = torch.float32 if isinstance(linear, Float32Linear) else weight.dtype
    value = weight.to(torch.float32, copy=True)
    for step in steps:
        tensors = {
            # Alpha is read as a number: on the CPU that does not wait for the device.
            role: step.file.get_tensor(key).to(
                "cpu" if role == "alpha" else weight.device, torch.float32
            )
            for role, key in step.change.keys.items()
        }
        delta = DELTAS[step.change.method](tensors)
        columns = value.shape[1]
        if delta.shape[1] > columns:
            # The change also covers the dropped columns, which count in the norms of DoRA.
            rest = value.new_zeros(len(value), delta.shape[1] - columns)
            value = torch.cat([value, rest if dropped is None else dropped], dim=1)
        add_delta(value, delta, tensors, strength=step.strength)
        value = value[:, :columns]
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
