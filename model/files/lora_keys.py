"""The grammar of LoRA files: which key changes which weight, and by which method. Needs no torch.

Names are looked up in a table made from the model's own weights, never taken apart by guessing.
A key that no weight or no method knows is an error that names it. Layouts: ComfyUI and
diffusion-pipe, kohya's sd-scripts, LyCORIS, diffusers and peft.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from model.errors import LoraUnusable
from model.files.safetensors_header import StoredTensor

Part = Literal["transformer", "adapter", "text_encoder"]
Method = Literal["lora", "lokr", "loha"]
Shape = tuple[int, ...]

SHOWN_KEYS = 5

_ROLES = (
    (re.compile(r"\.lora_(?:down|A)(?:\.\w+)?\.weight$|\.lora\.down\.weight$"), "down"),
    (re.compile(r"\.lora_(?:up|B)(?:\.\w+)?\.weight$|\.lora\.up\.weight$"), "up"),
    (re.compile(r"\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?$"), "magnitude"),
    (re.compile(r"\.(lokr_w[12](?:_[ab])?|hada_w[12]_[ab]|alpha|dora_scale)$"), None),
)
"""How a key ends, and the tensor's part in the formula; None: as it is spelled."""

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
"""The tensors whose first axis is the rank, in the order in which they are asked."""

_PEFT_PREFIX = "base_model.model."
_DOTTED: dict[Part, tuple[str, ...]] = {
    "transformer": ("diffusion_model.", "model.diffusion_model.", "net.", "transformer.", ""),
    "adapter": ("text_conditioner.",),
    "text_encoder": (
        "text_encoders.qwen3_06b.transformer.model.",
        "text_encoders.qwen3_06b.transformer.",
        "text_encoder.model.",
        "text_encoder.",
    ),
}
_FLAT: dict[Part, tuple[str, ...]] = {
    "transformer": ("lora_unet_", "lycoris_", "lora_transformer_"),
    "adapter": ("lora_text_conditioner_", "lycoris_text_conditioner_"),
    "text_encoder": ("lora_te_", "lora_te1_", "lora_te_model_", "lora_te1_model_"),
}
_DTYPES = frozenset({"F32", "F16", "BF16"})
_ALPHA_DTYPES = _DTYPES | {"F64", "I64", "I32"}


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """A weight that a LoRA may change: of `module`, with `shape` (out, in) as it is loaded.

    `original` is the module's name in the checkpoint's file. There the weight has
    `dropped_columns` more columns at its end, which loading leaves out.
    """

    part: Part
    module: str
    original: str
    shape: tuple[int, int]
    dropped_columns: int = 0


@dataclass(frozen=True, slots=True)
class LoraChange:
    """What a file does to one weight: the method, and the file's key for each of its tensors."""

    target: LoraTarget
    method: Method
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoraSummary:
    """What the keys alone tell. `method` is such as "lora", "dora" or "lokr + lora"."""

    method: str
    rank: int | None
    parts: tuple[Part, ...]


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into the name of a module and the tensor's role; None if it is no LoRA's."""
    for pattern, role in _ROLES:
        match = pattern.search(key)
        if match and match.start() > 0:
            return key[: match.start()].removeprefix(_PEFT_PREFIX), role or match[1]
    return None


def stem_table(targets: Iterable[LoraTarget]) -> dict[str, LoraTarget]:
    """Every name under which a LoRA file may speak of each target.

    ValueError if one name would mean two weights.
    """
    table: dict[str, LoraTarget] = {}
    for target in targets:
        for stem in _stems(target):
            if table.setdefault(stem, target) != target:
                raise ValueError(f"{stem} names both {table[stem].module} and {target.module}")
    return table


def _stems(target: LoraTarget) -> Iterator[str]:
    for name in {target.module, target.original}:
        # The adapter lies in the transformer's file, where its names have a prefix of their own.
        is_in_file = target.part == "adapter" and name == target.original
        part: Part = "transformer" if is_in_file else target.part
        yield from (prefix + name for prefix in _DOTTED[part])
        yield from (prefix + name.replace(".", "_") for prefix in _FLAT[part])


def plan_changes(
    entries: Mapping[str, StoredTensor], table: Mapping[str, LoraTarget]
) -> list[LoraChange]:
    """All that a file does to the model whose names are in `table`.

    Raises:
        LoraUnusable: a key matches no weight or no method, a tensor lacks its partner, or a shape
            or type does not fit; the message names the keys.
    """
    grouped, unknown = _by_stem(entries)
    unknown += [key for stem, keys in grouped.items() if stem not in table for key in keys.values()]
    if unknown:
        raise LoraUnusable(f"matches nothing in this checkpoint: {few(sorted(unknown))}")
    changes = [
        LoraChange(table[stem], _method(keys), keys) for stem, keys in sorted(grouped.items())
    ]
    for change in changes:
        _check(change, entries)
    twice = [module for module, n in Counter(_place(c.target) for c in changes).items() if n > 1]
    if twice:
        raise LoraUnusable(f"changes a weight under two names: {few(twice)}")
    return changes


def summarise(entries: Mapping[str, StoredTensor]) -> LoraSummary:
    """What a file is, as far as that can be told without the model.

    Raises:
        LoraUnusable: a key is no LoRA's, or a tensor lacks its partner.
    """
    grouped, unknown = _by_stem(entries)
    if unknown:
        raise LoraUnusable(f"has keys of no known LoRA method: {few(sorted(unknown))}")
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


def _part_of(stem: str) -> Part:
    if re.match(r"lora_te1?_|text_encoders?\.", stem):
        return "text_encoder"
    return "adapter" if re.search(r"llm_adapter|text_conditioner", stem) else "transformer"


def few(keys: list[str]) -> str:
    """The first keys and how many more there are."""
    shown = ", ".join(key[:200] for key in keys[:SHOWN_KEYS])
    more = len(keys) - SHOWN_KEYS
    return shown if more <= 0 else f"{shown} and {more} more"


def _place(target: LoraTarget) -> str:
    return f"{target.part} {target.module}"


def _by_stem(entries: Mapping[str, StoredTensor]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Keys by module name and role, and those that are no LoRA's."""
    grouped: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for key in entries:
        found = split_key(key)
        if found is None:
            unknown.append(key)
            continue
        stem, role = found
        if role in grouped[stem]:
            raise LoraUnusable(f"has a tensor twice: {few([grouped[stem][role], key])}")
        grouped[stem][role] = key
    if not entries:
        raise LoraUnusable("holds no tensors")
    return dict(grouped), unknown


def _method(keys: Mapping[str, str]) -> Method:
    method = _COMPLETE.get(frozenset(keys) - _OPTIONAL)
    if method is None or {"dora_scale", "magnitude"} <= keys.keys():
        raise LoraUnusable(
            f"has tensors that make no complete change: {few(sorted(keys.values()))}"
        )
    return method


# -- shapes ------------------------------------------------------------------------------------


def _check(change: LoraChange, entries: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors of another type, and shapes that do not give the weight's."""
    found = {role: entries[key] for role, key in change.keys.items()}
    for role, entry in found.items():
        if entry.dtype not in (_ALPHA_DTYPES if role == "alpha" else _DTYPES):
            raise LoraUnusable(
                f"{change.keys[role]} is {entry.dtype}; weights must be F32, F16 or BF16"
            )
    shapes = {role: entry.shape for role, entry in found.items()}
    rows, columns = change.target.shape
    wide = columns + change.target.dropped_columns
    made = _made(shapes, change.method)
    if made not in {(rows, columns), (rows, wide)}:
        told = ", ".join(f"{change.keys[role]} {shapes[role]}" for role in sorted(shapes))
        raise LoraUnusable(f"does not fit {change.target.original} of shape {(rows, wide)}: {told}")
    _check_scales(change, shapes, made)


def _check_scales(change: LoraChange, shapes: Mapping[str, Shape], made: tuple[int, int]) -> None:
    rows, columns = made
    allowed: dict[str, set[Shape]] = {
        "alpha": {(), (1,)},
        "dora_scale": {(rows,), (rows, 1), (1, columns)},
        "magnitude": {(rows,), (rows, 1)},
    }
    for role in _OPTIONAL & shapes.keys():
        if shapes[role] not in allowed[role]:
            raise LoraUnusable(f"{change.keys[role]} has shape {shapes[role]}")


def _made(shapes: Mapping[str, Shape], method: Method) -> tuple[int, int] | None:
    """The shape of the change that tensors of these shapes give; None if they give none."""
    if method == "lora":
        return _product(shapes["up"], shapes["down"])
    if method == "loha":
        first = _product(shapes["hada_w1_a"], shapes["hada_w1_b"])
        return first if first == _product(shapes["hada_w2_a"], shapes["hada_w2_b"]) else None
    first, second = _half(shapes, "lokr_w1"), _half(shapes, "lokr_w2")
    if first is None or second is None:
        return None
    return first[0] * second[0], first[1] * second[1]


def _half(shapes: Mapping[str, Shape], name: str) -> tuple[int, int] | None:
    """The shape of a factor of a Kronecker product, which is whole or a product itself."""
    if name not in shapes:
        return _product(shapes[f"{name}_a"], shapes[f"{name}_b"])
    whole = shapes[name]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _product(left: Shape, right: Shape) -> tuple[int, int] | None:
    """The shape of a matrix product."""
    if len(left) == len(right) == 2 and left[1] == right[0] > 0:
        return left[0], right[1]
    return None
