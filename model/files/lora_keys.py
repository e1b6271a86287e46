"""Parses the keys of LoRA files: which key changes which weight, and by which method.

Layouts: ComfyUI and diffusion-pipe, kohya's sd-scripts, LyCORIS, diffusers and peft. Keys are
looked up in a table of the model's own weights. A key that matches no weight or no method is an
error. Does not need torch.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from model.errors import LoraUnusable
from model.files.safetensors_header import StoredTensor, first_keys

LoraPart = Literal["transformer", "adapter", "text_encoder"]
Method = Literal["lora", "lokr", "loha"]
Shape = tuple[int, ...]


_ROLES = (
    (re.compile(r"\.lora_(?:down|A)(?:\.\w+)?\.weight$|\.lora\.down\.weight$"), "down"),
    (re.compile(r"\.lora_(?:up|B)(?:\.\w+)?\.weight$|\.lora\.up\.weight$"), "up"),
    (re.compile(r"\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?$"), "magnitude"),
    (re.compile(r"\.(lokr_w[12](?:_[ab])?|hada_w[12]_[ab]|alpha|dora_scale)$"), None),
)
"""The endings of keys, each with the tensor's role in the formula; None: the ending itself."""

_OPTIONAL = frozenset({"alpha", "dora_scale", "magnitude"})
_COMPLETE: dict[frozenset[str], Method] = {
    frozenset({"down", "up"}): "lora",
    frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}): "loha",
    frozenset({"lokr_w1", "lokr_w2"}): "lokr",
    frozenset({"lokr_w1_a", "lokr_w1_b", "lokr_w2"}): "lokr",
    frozenset({"lokr_w1", "lokr_w2_a", "lokr_w2_b"}): "lokr",
    frozenset({"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"}): "lokr",
}
_RANK_ROLES = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""The tensors whose first axis is the rank, in order of preference."""

_PEFT_PREFIX = "base_model.model."
_DOTTED: dict[LoraPart, tuple[str, ...]] = {
    "transformer": ("diffusion_model.", "model.diffusion_model.", "net.", "transformer.", ""),
    "adapter": ("text_conditioner.",),
    "text_encoder": (
        "text_encoders.qwen3_06b.transformer.model.",
        "text_encoders.qwen3_06b.transformer.",
        "text_encoder.model.",
        "text_encoder.",
    ),
}
_FLAT: dict[LoraPart, tuple[str, ...]] = {
    "transformer": ("lora_unet_", "lycoris_", "lora_transformer_"),
    "adapter": ("lora_text_conditioner_", "lycoris_text_conditioner_"),
    "text_encoder": ("lora_te_", "lora_te1_", "lora_te_model_", "lora_te1_model_"),
}
_DTYPES = frozenset({"F32", "F16", "BF16"})
_ALPHA_DTYPES = _DTYPES | {"F64", "I64", "I32"}


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """A weight that a LoRA may change: the weight of `module`, loaded with `shape` (out, in).

    `original` is the module's name in the checkpoint's file. In the file the weight has
    `dropped_columns` more columns at its end, which loading drops.
    """

    part: LoraPart
    module: str
    original: str
    shape: tuple[int, int]
    dropped_columns: int = 0


@dataclass(frozen=True, slots=True)
class LoraChange:
    """A file's change of one weight: the method, and the file's key for each role."""

    target: LoraTarget
    method: Method
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoraSummary:
    """A LoRA as described by its keys. `method` is for example "lora", "dora" or "lokr + lora"."""

    method: str
    rank: int | None
    parts: tuple[LoraPart, ...]


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into a module's name and the tensor's role; None if it is not a LoRA key."""
    for pattern, role in _ROLES:
        match = pattern.search(key)
        if match and match.start() > 0:
            return key[: match.start()].removeprefix(_PEFT_PREFIX), role or match[1]
    return None


def stem_table(targets: Iterable[LoraTarget]) -> dict[str, LoraTarget]:
    """Map every name that a LoRA file may use for a target to that target.

    Raises:
        ValueError: one name means two weights.
    """
    table: dict[str, LoraTarget] = {}
    for target in targets:
        for stem in _stems(target):
            if table.setdefault(stem, target) != target:
                raise ValueError(f"{stem} names both {table[stem].module} and {target.module}")
    return table


def _stems(target: LoraTarget) -> Iterator[str]:
    for name in {target.module, target.original}:
        # The adapter is stored in the transformer's file, under names with its own prefix.
        is_in_file = target.part == "adapter" and name == target.original
        part: LoraPart = "transformer" if is_in_file else target.part
        yield from (prefix + name for prefix in _DOTTED[part])
        yield from (prefix + name.replace(".", "_") for prefix in _FLAT[part])


def plan_changes(
    entries: Mapping[str, StoredTensor], table: Mapping[str, LoraTarget]
) -> list[LoraChange]:
    """Return all changes that a file makes to the model whose names are in `table`.

    Raises:
        LoraUnusable: a key matches no weight or no method, a tensor of a method is missing, or a
            shape or type does not fit; the message names the keys.
    """
    grouped, unknown = _by_stem(entries)
    unknown += [key for stem, keys in grouped.items() if stem not in table for key in keys.values()]
    if unknown:
        raise LoraUnusable(f"matches nothing in this checkpoint: {first_keys(sorted(unknown))}")
    changes = [
        LoraChange(table[stem], _method(keys), keys) for stem, keys in sorted(grouped.items())
    ]
    for change in changes:
        _check_change(change, entries)
    counts = Counter(f"{change.target.part} {change.target.module}" for change in changes)
    twice = [weight for weight, count in counts.items() if count > 1]
    if twice:
        raise LoraUnusable(f"changes a weight under two names: {first_keys(twice)}")
    return changes


def summarise(entries: Mapping[str, StoredTensor]) -> LoraSummary:
    """Describe a file without the model.

    Raises:
        LoraUnusable: a key is not a LoRA key, or a tensor of a method is missing.
    """
    grouped, unknown = _by_stem(entries)
    if unknown:
        raise LoraUnusable(f"has keys of an unknown LoRA method: {first_keys(sorted(unknown))}")
    methods = {
        "dora" if keys.keys() & {"dora_scale", "magnitude"} and method == "lora" else method
        for keys in grouped.values()
        for method in (_method(keys),)
    }
    ranks = [
        entries[keys[role]].shape[0]
        for keys in grouped.values()
        for role in _RANK_ROLES
        if role in keys and entries[keys[role]].shape
    ]
    parts = {_part_of(stem) for stem in grouped}
    return LoraSummary(
        method=" + ".join(sorted(methods)),
        rank=max(ranks, default=None),
        parts=tuple(part for part in _DOTTED if part in parts),
    )


def _part_of(stem: str) -> LoraPart:
    if re.match(r"lora_te1?_|text_encoders?\.", stem):
        return "text_encoder"
    return "adapter" if re.search(r"llm_adapter|text_conditioner", stem) else "transformer"


def _by_stem(entries: Mapping[str, StoredTensor]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group keys by module name and role. Also returns the keys that are not LoRA keys."""
    grouped: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for key in entries:
        found = split_key(key)
        if found is None:
            unknown.append(key)
            continue
        stem, role = found
        if role in grouped[stem]:
            raise LoraUnusable(f"has a tensor twice: {first_keys([grouped[stem][role], key])}")
        grouped[stem][role] = key
    if not entries:
        raise LoraUnusable("has no tensors")
    return dict(grouped), unknown


def _method(keys: Mapping[str, str]) -> Method:
    method = _COMPLETE.get(frozenset(keys) - _OPTIONAL)
    if method is None or {"dora_scale", "magnitude"} <= keys.keys():
        raise LoraUnusable(f"has an incomplete set of tensors: {first_keys(sorted(keys.values()))}")
    return method


# -- shapes ------------------------------------------------------------------------------------


def _check_change(change: LoraChange, entries: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors of another type, and shapes that do not give the shape of the weight."""
    found = {role: entries[key] for role, key in change.keys.items()}
    for role, entry in found.items():
        if entry.dtype not in (_ALPHA_DTYPES if role == "alpha" else _DTYPES):
            raise LoraUnusable(
                f"{change.keys[role]} is {entry.dtype}; weights must be F32, F16 or BF16"
            )
    shapes = {role: entry.shape for role, entry in found.items()}
    rows, columns = change.target.shape
    wide = columns + change.target.dropped_columns
    shape = _change_shape(shapes, change.method)
    if shape not in {(rows, columns), (rows, wide)}:
        stored = ", ".join(f"{change.keys[role]} {shapes[role]}" for role in sorted(shapes))
        raise LoraUnusable(
            f"does not fit {change.target.original} of shape {(rows, wide)}: {stored}"
        )
    _check_scales(change, shapes, shape)


def _check_scales(change: LoraChange, shapes: Mapping[str, Shape], shape: tuple[int, int]) -> None:
    rows, columns = shape
    allowed: dict[str, set[Shape]] = {
        "alpha": {(), (1,)},
        "dora_scale": {(rows,), (rows, 1), (1, columns)},
        "magnitude": {(rows,), (rows, 1)},
    }
    for role in _OPTIONAL & shapes.keys():
        if shapes[role] not in allowed[role]:
            raise LoraUnusable(f"{change.keys[role]} has shape {shapes[role]}")


def _change_shape(shapes: Mapping[str, Shape], method: Method) -> tuple[int, int] | None:
    """The shape of the change that these tensors give; None if they do not fit together."""
    if method == "lora":
        return _product_shape(shapes["up"], shapes["down"])
    if method == "loha":
        first = _product_shape(shapes["hada_w1_a"], shapes["hada_w1_b"])
        return first if first == _product_shape(shapes["hada_w2_a"], shapes["hada_w2_b"]) else None
    first, second = _factor_shape(shapes, "lokr_w1"), _factor_shape(shapes, "lokr_w2")
    if first is None or second is None:
        return None
    return first[0] * second[0], first[1] * second[1]


def _factor_shape(shapes: Mapping[str, Shape], name: str) -> tuple[int, int] | None:
    """The shape of a factor of a Kronecker product. A factor is whole or a product of two."""
    if name not in shapes:
        return _product_shape(shapes[f"{name}_a"], shapes[f"{name}_b"])
    whole = shapes[name]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _product_shape(left: Shape, right: Shape) -> tuple[int, int] | None:
    """The shape of a matrix product."""
    if len(left) == len(right) == 2 and left[1] == right[0] > 0:
        return left[0], right[1]
    return None
