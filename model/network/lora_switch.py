"""Switches the resident model between sets of LoRAs.

Merged weights are kept beside the originals and swapped in. Nothing is subtracted from a weight,
so removing a LoRA restores every bit.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import CheckpointError, LoraChanged, LoraUnusable
from model.files.lora.folder import LoraFolder, read_lora
from model.files.lora.plan import LoraChange, plan_changes
from model.files.lora.targets import LoraPart, stem_table
from model.network.lora_merge import (
    LoraModules,
    MergedValues,
    MergeInput,
    add_stacked,
    list_modules,
    merge_files,
)
from model.network.transformer.attention import self_attentions
from model.network.transformer.float8 import add_float8
from model.resolved_request import LoraSet, ResolvedLora

logger = logging.getLogger(__name__)

_TEXT_PARTS: tuple[LoraPart, ...] = ("text_encoder", "adapter")
_REMEMBERED_FILES = 64


@dataclass(frozen=True, slots=True, eq=False)
class SetWeights:
    """The transformer's weights with a set of LoRAs, whichever set is active."""

    loras: LoraSet
    values: MergedValues
    originals: Mapping[tuple[nn.Module, str], Tensor]

    def of(self, module: Any) -> Tensor:
        """The weight of one of its modules."""
        place = module, "weight"
        return self.values[place] if place in self.values else self.originals[place]


class LoraSwitch:
    """Activates sets of LoRAs in a model. One thread may switch each of its two parts.

    The text encoder and the transformer are switched separately, because a request encodes its
    prompts once and runs the transformer at every step. The `cached_sets` most recently used
    merged sets of each stay in memory. A set takes as much memory as the weights that it changes;
    switching between cached sets only swaps pointers. Another thread may `merge` a set for the
    transformer; the set that is being merged counts as one of them. With `skips_misfits`, tensors
    that do not fit the model are left out instead of refused.
    """

    def __init__(
        self,
        models: LoraModules | None,
        folder: LoraFolder,
        *,
        cached_sets: int = 2,
        skips_misfits: bool = False,
    ) -> None:
        self._folder = folder
        self._mask_columns = models.mask_columns if models else None
        self._modules = dict(list_modules(models)) if models else {}
        self._originals = {
            (module, name): parameter
            for module in self._modules.values()
            for name, parameter in module.named_parameters(recurse=False)
        }
        self._network = models.transformer if models else nn.Module()
        self._attentions = self_attentions(self._network)
        self._table = stem_table(self._modules)
        self._skips_misfits = skips_misfits
        self._lock = threading.RLock()
        self._changes_by_hash: OrderedDict[str, list[LoraChange]] = OrderedDict()
        self._text = MergedSets(cached_sets)
        self._transformer = MergedSets(cached_sets)

    @property
    def in_text(self) -> LoraSet:
        """The LoRAs that are active in the text encoder."""
        return self._text.current

    @property
    def in_transformer(self) -> LoraSet:
        """The LoRAs that are active in the transformer."""
        return self._transformer.current

    def split(self, loras: LoraSet) -> tuple[LoraSet, LoraSet]:
        """Split into those that change the text encoder and those that change the transformer.

        A LoRA may be in both. Reads and checks every file, so that a fault in one shows here.

        Raises:
            LoraMissing, LoraChanged: the file is missing, or not the one that was requested.
            LoraUnusable: the file does not fit the model; names the keys.
        """
        if not loras:
            return (), ()
        with self._lock:
            self._folder.refresh()
        effective = [(lora, self._changes(lora)) for lora in loras if lora.weight]
        text = (lora for lora, changes in effective if any(map(_is_text, changes)))
        transformer = (lora for lora, changes in effective if not all(map(_is_text, changes)))
        return tuple(text), tuple(transformer)

    def knows_hashes(self, loras: LoraSet) -> bool:
        """Whether the hash of each file, as it was last listed, is known."""
        return all(self._folder.known_sha256(lora.name) for lora in loras)

    def read_hashes(self, loras: LoraSet) -> None:
        """Compute the hashes of the files that `split` compares; any thread may call this.

        Raises:
            LoraMissing, LoraChanged, LoraUnusable: as `LoraFolder.sha256`.
        """
        self._folder.refresh()
        for lora in loras:
            if lora.name not in self._folder.refused:
                self._folder.sha256(lora.name)

    def use_in_text(self, loras: LoraSet) -> None:
        """Activate a set in Qwen3 and the adapter; () restores the original weights.

        Raises:
            LoraError: as in `split`. The originals may then be active instead of the set before.
        """
        self._text.use(loras, partial(self._merge, loras, is_wanted=_is_text))

    def use_in_transformer(self, loras: LoraSet) -> None:
        """Activate a set in the transformer; () restores the original weights.

        Raises:
            LoraError: as in `use_in_text`.
        """
        self._transformer.use(loras, partial(self.merge, loras))

    def is_merged(self, loras: LoraSet) -> bool:
        """Whether the transformer can switch to these without merging."""
        return not loras or loras in self._transformer

    def weights(self, loras: LoraSet) -> SetWeights | None:
        """The transformer's weights with a set, or None if it is not merged. For any thread."""
        values = self._transformer.values(loras) if loras else {}
        return None if values is None else SetWeights(loras, values, self._originals)

    def has_room(self, *, beside: Container[LoraSet]) -> bool:
        """Whether one more set can be merged without losing the active one or one of `beside`."""
        return self._transformer.has_room(beside)

    def make_room(self, *, beside: Container[LoraSet] = ()) -> None:
        """Drop sets until there is room for one more: those of `beside` later, the active last."""
        self._transformer.make_room(beside)

    def merge(self, loras: LoraSet) -> MergedValues:
        """Merge a set for the transformer, for `keep`. Any thread may call this.

        Raises:
            LoraError: as in `split`.
            torch.OutOfMemoryError: there is no memory for it.
        """
        return self._merge(loras, is_wanted=lambda change: not _is_text(change))

    def keep(self, loras: LoraSet, values: MergedValues) -> None:
        """Remember a merged set that there is room for."""
        self._transformer.keep(loras, values)

    def forget_merged(self) -> bool:
        """Drop all merged sets of the transformer; whether there were any."""
        return self._transformer.forget()

    def _changes(self, lora: ResolvedLora) -> list[LoraChange]:
        """The changes that the LoRA's file makes to this model, remembered by its hash."""
        with self._lock:
            return self._remembered_changes(lora)

    def _remembered_changes(self, lora: ResolvedLora) -> list[LoraChange]:
        path = self._path(lora)
        if lora.sha256 not in self._changes_by_hash:
            try:
                plan = plan_changes(read_lora(path), self._table, skips_misfits=self._skips_misfits)
                self._changes_by_hash[lora.sha256] = plan.changes
            except CheckpointError as exc:
                logger.warning("lora=%s event=unreadable reason=%s", lora.name, exc)
                raise LoraUnusable(f"LoRA {lora.name} cannot be read") from exc
            except LoraUnusable as exc:
                raise LoraUnusable(f"LoRA {lora.name} {exc}") from exc
            if len(self._changes_by_hash) > _REMEMBERED_FILES:
                self._changes_by_hash.popitem(last=False)
        return self._changes_by_hash[lora.sha256]

    def _path(self, lora: ResolvedLora) -> Path:
        with self._lock:
            return self._checked_path(lora)

    def _checked_path(self, lora: ResolvedLora) -> Path:
        if lora.name in self._folder.refused:
            raise LoraUnusable(f"LoRA {lora.name} {self._folder.refused[lora.name]}")
        found = self._folder.sha256(lora.name)
        if found != lora.sha256:
            raise LoraChanged(
                f"LoRA {lora.name} has sha256 {found[:12]} here; the request was accepted with "
                f"{lora.sha256[:12]}"
            )
        return self._folder.files[lora.name].path

    def _merge(self, loras: LoraSet, *, is_wanted: Callable[[LoraChange], bool]) -> MergedValues:
        """Merge the wanted changes of a set into new weights, one for every changed parameter."""
        began = time.perf_counter()
        files = [
            MergeInput(self._path(lora), list(filter(is_wanted, self._changes(lora))), lora.weight)
            for lora in loras
        ]
        merged = merge_files(
            files, self._modules, mask_columns=self._mask_columns, original=self._original
        )
        for lora in loras:
            self._path(lora)  # fails if the file was replaced while it was read
        # One pass over the weights: a sum is finite only if all its terms are.
        sums = [weight.sum(dtype=torch.float32) for weight in merged.values()]
        if not torch.stack(sums).isfinite().all():
            names = ", ".join(lora.name for lora in loras)
            raise LoraUnusable(f"LoRA {names} makes weights that are not finite")
        seconds = time.perf_counter() - began
        names = ", ".join(f"{lora.name}:{lora.weight:g}" for lora in loras)
        logger.info("loras=%r event=merged weights=%d seconds=%.3f", names, len(merged), seconds)
        add_stacked(merged, self._attentions, self._original)
        add_float8(merged, self._network)
        return merged

    def _original(self, module: nn.Module, name: str) -> Tensor:
        return self._originals[module, name]


class MergedSets:
    """The most recently used merged sets of one part of the model, one of them active."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"cached_sets is {limit}, must be at least 1")
        self._limit = limit
        self._sets: OrderedDict[LoraSet, MergedValues] = OrderedDict()
        self._originals: MergedValues = {}
        self.current: LoraSet = ()

    def __contains__(self, loras: LoraSet) -> bool:
        return loras in self._sets

    def use(self, loras: LoraSet, merge: Callable[[], MergedValues]) -> None:
        """Activate a set. `merge` computes its weights if they are not cached."""
        if loras == self.current:
            return
        self._restore()
        if not loras:
            return
        if loras not in self._sets:
            self.make_room(())
            self.keep(loras, self._merged(merge))
        self._sets.move_to_end(loras)
        for (module, name), value in self._sets[loras].items():
            self._originals[module, name] = getattr(module, name)
            setattr(module, name, value)
        self.current = loras

    def values(self, loras: LoraSet) -> MergedValues | None:
        """The weights of a set, if it is here."""
        return self._sets.get(loras)

    def has_room(self, beside: Container[LoraSet]) -> bool:
        """Whether one more set fits without the loss of the active one or of one in `beside`."""
        return len(self._sets) < self._limit or any(
            loras not in beside and loras != self.current for loras in self._sets
        )

    def make_room(self, beside: Container[LoraSet]) -> None:
        """Drop the least recently used sets until one more fits; those in `beside` come later."""
        while len(self._sets) >= self._limit:
            victim = min(self._sets, key=lambda one: (one == self.current, one in beside))
            if victim == self.current:
                self._restore()
            del self._sets[victim]

    def keep(self, loras: LoraSet, values: MergedValues) -> None:
        """Add a set as the most recently used one."""
        self._sets[loras] = values

    def forget(self) -> bool:
        """Restore the originals and drop all sets; whether there were any."""
        had_any = bool(self._sets)
        self._restore()
        self._sets.clear()
        return had_any

    def _merged(self, merge: Callable[[], MergedValues]) -> MergedValues:
        """Call `merge`. If memory runs out, drop the cached sets and call it again."""
        try:
            return merge()
        except torch.OutOfMemoryError:
            if not self.forget():
                raise
            logger.warning("no memory for %d merged sets of LoRAs; keeping one", self._limit)
        # Outside the handler: its traceback keeps the tensors that did not fit alive.
        torch.cuda.empty_cache()
        return merge()

    def _restore(self) -> None:
        for (module, name), value in self._originals.items():
            setattr(module, name, value)
        self._originals.clear()
        self.current = ()


def _is_text(change: LoraChange) -> bool:
    return change.target.part in _TEXT_PARTS
