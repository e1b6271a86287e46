"""LoRAs in the resident model: changed weights are kept beside the originals and swapped in.

Originals are never subtracted from, so that a removed LoRA leaves every bit as it was. All sums
are float32 on the weights' device, rounded once at the end. Formulas: Hu et al. 2021 (LoRA,
arXiv 2106.09685), Hyeon-Woo et al. 2022 (LoHa, 2108.06098), Yeh et al. 2024 (LoKr, 2309.14859),
Liu et al. 2024 (DoRA, 2402.09353). Knows no requests' other fields and no scheduling.
"""

import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from model.errors import CheckpointError, LoraChanged, LoraUnusable
from model.files.keymap import adapter_to_original, transformer_to_original
from model.files.lora_folder import LoraFolder, read_lora_header
from model.files.lora_keys import LoraChange, LoraTarget, Part, plan_changes, stem_table
from model.network.weights import Float32Linear
from model.request import LoraSet, ResolvedLora

logger = logging.getLogger(__name__)

_TEXT_PARTS: tuple[Part, ...] = ("text_encoder", "adapter")
_KNOWN_FILES = 64
_EPSILON = torch.finfo(torch.float32).eps
_PATCH_EMBED = "patch_embed.proj"
_PADDING_MASK_COLUMNS = 4
"""The patch columns of a channel that is always zero, which loading leaves out."""

Tensors = Mapping[str, Tensor]


class LoraModules(Protocol):
    """The parts of a loaded checkpoint that LoRAs may change. The VAE is none of them."""

    @property
    def transformer(self) -> nn.Module: ...
    @property
    def conditioner(self) -> nn.Module: ...
    @property
    def text_encoder(self) -> nn.Module: ...
    @property
    def mask_columns(self) -> Tensor | None: ...


class LoraSwitch:
    """Puts sets of LoRAs in force in a model, and takes them away again. One owner, one thread.

    The text path and the transformer are switched apart from one another, because prompts are
    read once and the transformer runs at every step. The latest `cached_sets` merged sets of each
    are kept, every one as large as the weights that it changes; switching among those only swaps
    pointers.
    """

    def __init__(
        self, models: LoraModules | None, folder: LoraFolder, *, cached_sets: int = 2
    ) -> None:
        modules: dict[Part, nn.Module] = {}
        if models is not None:
            modules = {
                "transformer": models.transformer,
                "adapter": models.conditioner,
                "text_encoder": models.text_encoder,
            }
        self._folder = folder
        self._mask_columns = models.mask_columns if models else None
        self._linears = dict(_linears(modules))
        self._table = stem_table(self._linears)
        self._known: OrderedDict[str, list[LoraChange]] = OrderedDict()
        self._text = _MergedSets(cached_sets)
        self._transformer = _MergedSets(cached_sets)

    @property
    def in_text(self) -> LoraSet:
        """The LoRAs that the text path encodes with now."""
        return self._text.current

    def split(self, loras: LoraSet) -> tuple[LoraSet, LoraSet]:
        """Those that change the text path, and those that change the transformer.

        Every file is looked up and checked whole, so that what can be wrong with it is told here.

        Raises:
            LoraMissing, LoraChanged: the file is not there, or not the one that was asked for.
            LoraUnusable: it does not fit the model; names the keys.
        """
        if not loras:
            return (), ()
        self._folder.refresh()
        effective = [(lora, self._changes(lora)) for lora in loras if lora.weight]
        text = (lora for lora, changes in effective if any(map(_is_text, changes)))
        transformer = (lora for lora, changes in effective if not all(map(_is_text, changes)))
        return tuple(text), tuple(transformer)

    def use_in_text(self, loras: LoraSet) -> None:
        """Put these in force in Qwen3 and the adapter; () puts the originals back.

        Raises:
            LoraError: as `split`; what was in force before may be gone then, the originals not.
        """
        self._text.use(loras, partial(self._merge, loras, is_wanted=_is_text))

    def use_in_transformer(self, loras: LoraSet) -> None:
        """Put these in force in the transformer; () puts the originals back. Raises as before."""
        self._transformer.use(
            loras, partial(self._merge, loras, is_wanted=lambda change: not _is_text(change))
        )

    def is_merged(self, loras: LoraSet) -> bool:
        """Whether the transformer can be switched to these at once."""
        return not loras or loras in self._transformer

    # -- files -------------------------------------------------------------------------------

    def _changes(self, lora: ResolvedLora) -> list[LoraChange]:
        """What the LoRA's file does to this model; remembered by the file's content."""
        path = self._path(lora)
        if lora.sha256 not in self._known:
            try:
                entries = read_lora_header(path).tensors
                self._known[lora.sha256] = plan_changes(entries, self._table)
            except CheckpointError as exc:
                logger.warning("lora=%s event=unreadable reason=%s", lora.name, exc)
                raise LoraUnusable(f"LoRA {lora.name} cannot be read") from exc
            except LoraUnusable as exc:
                raise LoraUnusable(f"LoRA {lora.name} {exc}") from exc
            if len(self._known) > _KNOWN_FILES:
                self._known.popitem(last=False)
        return self._known[lora.sha256]

    def _path(self, lora: ResolvedLora) -> Path:
        found = self._folder.sha256(lora.name)
        if found != lora.sha256:
            raise LoraChanged(
                f"LoRA {lora.name} has sha256 {found[:12]} here; the request was accepted with "
                f"{lora.sha256[:12]}"
            )
        return self._folder.files[lora.name].path

    # -- merging -----------------------------------------------------------------------------

    def _merge(
        self, loras: LoraSet, *, is_wanted: Callable[[LoraChange], bool]
    ) -> dict[nn.Linear, Tensor]:
        """The changed weights of a set, one parameter for every module that it touches."""
        began = time.perf_counter()
        with ExitStack() as opened:
            steps: dict[LoraTarget, list[_LoraStep]] = defaultdict(list)
            for lora in loras:
                changes = self._changes(lora)
                file = opened.enter_context(safe_open(self._path(lora), framework="pt"))
                for change in filter(is_wanted, changes):
                    steps[change.target].append(_LoraStep(change, file, lora.weight))
            merged: dict[nn.Linear, Tensor] = {
                self._linears[target]: _replacement(
                    self._linears[target],
                    of_target,
                    left_out=self._mask_columns if target.dropped_columns else None,
                )
                for target, of_target in steps.items()
            }
        for lora in loras:
            self._path(lora)  # the file is still the one that was checked
        # One pass: a sum is finite only if all that is in it is.
        sums = [weight.sum(dtype=torch.float32) for weight in merged.values()]
        if not torch.stack(sums).isfinite().all():
            names = ", ".join(lora.name for lora in loras)
            raise LoraUnusable(f"LoRA {names} makes weights that are not finite")
        seconds = time.perf_counter() - began
        names = ", ".join(f"{lora.name}:{lora.weight:g}" for lora in loras)
        logger.info("loras=%r event=merged weights=%d seconds=%.3f", names, len(merged), seconds)
        return merged


@dataclass(frozen=True, slots=True)
class _LoraStep:
    """One file's change of one weight, with the opened file and the strength."""

    change: LoraChange
    file: Any
    strength: float


class _MergedSets:
    """The latest merged sets of one half of the model, and which of them is in force."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"cached_sets is {limit}, must be at least 1")
        self._limit = limit
        self._sets: OrderedDict[LoraSet, dict[nn.Linear, Tensor]] = OrderedDict()
        self._originals: dict[nn.Linear, Tensor] = {}
        self.current: LoraSet = ()

    def __contains__(self, loras: LoraSet) -> bool:
        return loras in self._sets

    def use(self, loras: LoraSet, merge: Callable[[], dict[nn.Linear, Tensor]]) -> None:
        """Put a set in force; `merge` makes its weights where they are not kept."""
        if loras == self.current:
            return
        self._restore()
        if not loras:
            return
        if loras not in self._sets:
            while len(self._sets) >= self._limit:
                self._sets.popitem(last=False)
            self._sets[loras] = self._merged(merge)
        self._sets.move_to_end(loras)
        for linear, weight in self._sets[loras].items():
            self._originals[linear] = linear.weight
            linear.weight = weight
        self.current = loras

    def _merged(self, merge: Callable[[], dict[nn.Linear, Tensor]]) -> dict[nn.Linear, Tensor]:
        """`merge`, once more without the sets that are kept if these leave it too little memory."""
        try:
            return merge()
        except torch.OutOfMemoryError:
            if not self._sets:
                raise
            logger.warning("no memory for %d merged sets of LoRAs; keeping one", self._limit)
            self._sets.clear()
        # Not in the handler, whose traceback holds on to what did not fit.
        torch.cuda.empty_cache()
        return merge()

    def _restore(self) -> None:
        for linear, weight in self._originals.items():
            linear.weight = weight
        self._originals.clear()
        self.current = ()


def _linears(modules: Mapping[Part, nn.Module]) -> Iterator[tuple[LoraTarget, nn.Linear]]:
    """Every linear layer of the model, under its names and with its shape."""
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                rows, columns = layer.weight.shape
                is_cut = part == "transformer" and name == _PATCH_EMBED
                dropped = _PADDING_MASK_COLUMNS if is_cut else 0
                yield LoraTarget(part, name, _original(part, name), (rows, columns), dropped), layer


def _original(part: Part, module: str) -> str:
    if part == "text_encoder":
        return module
    to_original = transformer_to_original if part == "transformer" else adapter_to_original
    return to_original(f"{module}.weight").removesuffix(".weight")


def _is_text(change: LoraChange) -> bool:
    return change.target.part in _TEXT_PARTS


# -- formulas ----------------------------------------------------------------------------------


@torch.inference_mode(mode=False)
@torch.no_grad()
def _replacement(
    linear: nn.Linear, steps: Sequence[_LoraStep], *, left_out: Tensor | None
) -> nn.Parameter:
    """The layer's weight after all changes: summed in float32, rounded once, if at all.

    A layer that computes in float32 anyway keeps its changed weight so.
    """
    weight = linear.weight
    dtype = torch.float32 if isinstance(linear, Float32Linear) else weight.dtype
    value = weight.to(torch.float32, copy=True)
    for step in steps:
        tensors = {
            # Alpha is read as a number, which need not wait for the device.
            role: step.file.get_tensor(key).to(
                "cpu" if role == "alpha" else weight.device, torch.float32
            )
            for role, key in step.change.keys.items()
        }
        delta = _DELTAS[step.change.method](tensors)
        columns = value.shape[1]
        if delta.shape[1] > columns:
            # The change speaks of columns that are not loaded, and so may the norms of DoRA.
            rest = value.new_zeros(len(value), delta.shape[1] - columns)
            value = torch.cat([value, rest if left_out is None else left_out], dim=1)
        _change(value, delta, tensors, strength=step.strength)
        value = value[:, :columns]
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)


def _change(weight: Tensor, delta: Tensor, tensors: Tensors, *, strength: float) -> None:
    """Add strength * delta to a float32 weight (out, in); with DoRA strength * (W' - W).

    Both tensors are written over: fresh memory for every sum would cost more than the sums.
    ComfyUI's `dora_scale` is W' = (W + delta) * dora_scale / norm(W) with norms of the rows, or
    of the columns where the scale has one number for each of those; peft's magnitude vector is
    DoRA as published, with the norm of W + delta.
    """
    if "dora_scale" in tensors:
        scale = tensors["dora_scale"]
        of_rows = scale.shape[0] == weight.shape[0]
        norm = torch.linalg.vector_norm(weight, dim=1 if of_rows else 0, keepdim=True)
        scale = scale.reshape(-1, 1) if of_rows else scale
        delta.add_(weight).mul_(scale / (norm + _EPSILON)).sub_(weight)
    elif "magnitude" in tensors:
        norm = torch.linalg.vector_norm(delta.add_(weight), dim=1, keepdim=True)
        delta.mul_(tensors["magnitude"].reshape(-1, 1) / (norm + _EPSILON)).sub_(weight)
    weight.add_(delta, alpha=strength)


def _lora(tensors: Tensors) -> Tensor:
    up, down = tensors["up"], tensors["down"]
    return (_scale(tensors, rank=len(down)) * up) @ down


def _loha(tensors: Tensors) -> Tensor:
    first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
    second = tensors["hada_w2_a"] @ tensors["hada_w2_b"]
    return first.mul_(second).mul_(_scale(tensors, rank=len(tensors["hada_w1_b"])))


def _lokr(tensors: Tensors) -> Tensor:
    """A Kronecker product; if both factors are whole there is no rank and alpha means nothing."""
    ranks = [len(tensors[f"lokr_w{i}_b"]) for i in (2, 1) if f"lokr_w{i}_b" in tensors]
    first, second = (_factor(tensors, f"lokr_w{i}") for i in (1, 2))
    scale = _scale(tensors, rank=ranks[0]) if ranks else 1.0
    return torch.kron(scale * first, second)


def _factor(tensors: Tensors, name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"]


def _scale(tensors: Tensors, *, rank: int) -> float:
    """The file's alpha / rank; 1 if it has none."""
    return float(tensors["alpha"]) / rank if "alpha" in tensors else 1.0


_DELTAS: dict[str, Callable[[Tensors], Tensor]] = {"lora": _lora, "loha": _loha, "lokr": _lokr}
