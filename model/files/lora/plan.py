"""Plans the changes that a LoRA file makes to a checkpoint, and refuses what is not understood.

The API uses the plan to refuse files at submission, a worker to merge them. Does not need torch.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.errors import LoraUnusable
from model.files.lora.depth import DepthMatch, match_depth, stated_depth
from model.files.lora.keys import Method, group_keys, rank_of, split_methods
from model.files.lora.other_inputs import refuse_other_inputs
from model.files.lora.rotation import Rotation, read_rotation
from model.files.lora.scaling import ScaledModule, Scalings
from model.files.lora.shapes import change_columns
from model.files.lora.targets import LoraTarget, find_stem
from model.files.safetensors_header import StoredTensor, first_keys, read_number

_BLOCK_NAME = "transformer_blocks."
_SCALED_METHODS = frozenset({"lora", "loha", "lokr", "embedding", "glora"})
_SCALED_ROLES = frozenset({"down", "hada_w1_a", "lokr_w1", "lokr_w1_a", "embedding_a", "a1"})
_WHOLE_LOKR = frozenset({"lokr_w1", "lokr_w2"})
_ROTATIONS = frozenset({"oft_r", "oft_embedding_r"})


@dataclass(frozen=True, slots=True)
class LoraContents:
    """A file's header, and the configuration that peft wrote next to it.

    `shared_config` is a configuration that lies next to this and to other files.
    """

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    adapter_config: Mapping[str, Any] | None = None
    shared_config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LoraChange:
    """A file's change of one weight or bias: the method, and the file's key for each role.

    `alpha` is the one stated beside the tensors, if there is no tensor. `rank` divides the alpha
    of LoKr with two whole factors; None: its factor is 1. `columns` is the width of
    the change of a matrix, which may include the target's dropped columns. `rotation` is the
    formula of `oft_R`.
    """

    target: LoraTarget
    method: Method
    keys: dict[str, str]
    alpha: float | None = None
    columns: int | None = None
    rotation: Rotation | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class LoraPlan:
    """Everything that a file changes, the keys that are left out, and a warning about its depth."""

    changes: list[LoraChange]
    left_out: tuple[str, ...] = ()
    depth_warning: str | None = None


def plan_changes(
    contents: LoraContents,
    table: Mapping[str, LoraTarget] | None,
    *,
    skips_misfits: bool = False,
) -> LoraPlan:
    """Return all changes that a file makes to the model whose names are in `table`.

    Without a table (None) only what does not depend on the model is checked, and there are no
    changes. With `skips_misfits`, modules that the model does not have, methods that are not
    supported and tensors that do not fit are left out instead of refused.

    Raises:
        LoraUnusable: a key matches no weight or no method, a tensor of a method is missing, a shape
            or type does not fit, alpha is contradictory, the file is made for another depth or
            needs another input; the message names the keys.
    """
    refuse_other_inputs(contents.metadata, contents.tensors, _patch_columns(table))
    grouped, unknown = group_keys(contents.tensors)
    depth = DepthMatch()
    if table:
        depth = match_depth(grouped, _depth(table), stated_depth(contents.metadata))
    misfits = _Misfits(skips_misfits)
    if table is not None:
        grouped = _with_known_names(grouped, table)
        unknown += [key for s, keys in grouped.items() if s not in table for key in keys.values()]
        grouped = {stem: keys for stem, keys in grouped.items() if stem in table}
    if unknown:
        reason = "matches nothing in this checkpoint" if table else "has keys of an unknown method"
        misfits.add(LoraUnusable(f"{reason}: {first_keys(sorted(unknown))}"), unknown)
    scalings, rotation = _read_statements(contents, grouped)
    planner = _Planner(contents, table, depth, scalings, rotation)
    changes: list[LoraChange] = []
    for stem, keys in sorted(grouped.items()):
        try:
            changes += planner.changes_of(stem, keys)
        except _Misfit as exc:
            misfits.add(LoraUnusable(str(exc)), list(keys.values()))
    if len(misfits.keys) == len(contents.tensors):
        raise LoraUnusable(f"has nothing that fits: {first_keys(sorted(misfits.keys))}")
    _refuse_doubled(changes)
    return LoraPlan(changes, tuple(sorted(misfits.keys)), depth.warning)


class _Misfit(LoraUnusable):
    """A module's tensors do not fit. They may be left out; other errors concern the whole file."""


class _Misfits:
    """Collects the keys that are left out, or refuses them."""

    def __init__(self, is_skipping: bool) -> None:
        self._is_skipping = is_skipping
        self.keys: list[str] = []

    def add(self, error: LoraUnusable, keys: list[str]) -> None:
        if not self._is_skipping:
            raise error
        self.keys += keys


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans the changes of single modules."""

    contents: LoraContents
    table: Mapping[str, LoraTarget] | None
    depth: DepthMatch
    scalings: Scalings
    rotation: Rotation | None

    def changes_of(self, stem: str, keys: dict[str, str]) -> list[LoraChange]:
        """The changes of one module. _Misfit if its tensors do not fit."""
        entries = self.contents.tensors
        target = self._target(stem)
        changes = []
        try:
            for method, roles in split_methods(keys, entries):
                columns = change_columns(target, method, roles, entries)
                _check_scaled(roles, entries)
                if target is None:
                    continue
                if method == "ia3":
                    _check_ia3(target, roles, entries)
                changes.append(LoraChange(target, method, roles, None, columns))
        except LoraUnusable as exc:
            raise _Misfit(str(exc)) from exc
        return [self._with_statement(stem, change) for change in changes]

    def _target(self, stem: str) -> LoraTarget | None:
        if self.table is None:
            return None
        target = self.table[stem]
        is_block = target.part == "transformer" and target.module.startswith(_BLOCK_NAME)
        if self.depth.new_blocks is None or not is_block:
            return target
        block, _, rest = target.module.removeprefix(_BLOCK_NAME).partition(".")
        return self.table[f"{_BLOCK_NAME}{self.depth.new_blocks[int(block)]}.{rest}"]

    def _with_statement(self, stem: str, change: LoraChange) -> LoraChange:
        """The change with what is stated beside the tensors."""
        if change.method == "peft_oft":
            return replace(change, rotation=self.rotation)
        if change.method not in _SCALED_METHODS:
            return change
        entries = self.contents.tensors
        is_whole = change.keys.keys() >= _WHOLE_LOKR
        module = ScaledModule(stem, change.target, change.keys, rank_of(change.keys, entries))
        if "alpha" in change.keys:
            if not is_whole:
                return change
            alpha = read_number(entries[change.keys["alpha"]])
            return replace(change, rank=self.scalings.whole_lokr_rank(module, alpha))
        if self.rotation is not None:
            raise LoraUnusable(f"mixes oft_R with {change.method} without alpha")
        stated = self.scalings.alpha_for(module)
        if stated is None:
            return change
        return replace(change, alpha=stated.alpha, rank=stated.rank if is_whole else None)


def _with_known_names(
    grouped: Mapping[str, dict[str, str]], table: Mapping[str, LoraTarget]
) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for stem, keys in grouped.items():
        known = found.setdefault(find_stem(stem, table), {})
        if known.keys() & keys.keys():
            raise LoraUnusable(f"has a tensor twice: {first_keys(sorted(keys.values()))}")
        known |= keys
    return found


def _read_statements(
    contents: LoraContents, grouped: Mapping[str, Mapping[str, str]]
) -> tuple[Scalings, Rotation | None]:
    """What is stated beside the tensors: about alpha, or about rotations."""
    rotation = None
    if any(keys.keys() & _ROTATIONS for keys in grouped.values()):
        is_scaled = any("scaled_oft" in keys for keys in grouped.values())
        rotation = read_rotation(contents.metadata, contents.adapter_config, is_scaled=is_scaled)
    lacks_alpha = any(
        keys.keys() & _SCALED_ROLES and "alpha" not in keys for keys in grouped.values()
    )
    scalings = Scalings(
        contents.metadata,
        contents.adapter_config,
        is_needed=lacks_alpha and rotation is None,
        shared_config=contents.shared_config,
    )
    return scalings, rotation


def _patch_columns(table: Mapping[str, LoraTarget] | None) -> int | None:
    target = (table or {}).get("patch_embed.proj")
    return target.shape[1] + target.dropped_columns if target else None


def _depth(table: Mapping[str, LoraTarget]) -> int:
    """The number of transformer blocks of the model."""
    names = (target.module for target in table.values() if target.part == "transformer")
    blocks = (name.split(".")[1] for name in names if name.startswith(_BLOCK_NAME))
    return 1 + max(map(int, blocks), default=-1)


def _refuse_doubled(changes: list[LoraChange]) -> None:
    counts = Counter(
        f"{change.target.part} {change.target.module}" + (" bias" * (change.method == "bias"))
        for change in changes
    )
    twice = [weight for weight, count in counts.items() if count > 1]
    if twice:
        raise LoraUnusable(f"changes a weight under two names: {first_keys(twice)}")


def _check_ia3(
    target: LoraTarget, keys: Mapping[str, str], entries: Mapping[str, StoredTensor]
) -> None:
    """Refuse an IA3 vector whose length is not that of the side that it scales."""
    scaled = entries[keys["ia3"]]
    rows, columns = target.shape
    if scaled.count != (columns if _is_on(entries[keys["on_input"]]) else rows):
        raise LoraUnusable(f"does not fit {target.original}: {scaled.key} {scaled.shape}")


def _check_scaled(keys: Mapping[str, str], entries: Mapping[str, StoredTensor]) -> None:
    """Refuse a zero for OneTrainer's mark, which is only written for scaled rotations."""
    key = keys.get("scaled_oft")
    if key and not _is_on(entries[key]):
        raise LoraUnusable(f"has {key}, which is zero")


def _is_on(entry: StoredTensor) -> bool:
    """Whether a stored switch is not zero."""
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return any(file.read(entry.size))
    except OSError as exc:
        raise LoraUnusable(f"{entry.key} cannot be read") from exc
