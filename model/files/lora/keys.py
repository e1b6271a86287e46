"""Splits the keys of LoRA files into a module's name and the tensor's role in a method.

Layouts: ComfyUI and its trainer, diffusion-pipe, kohya's sd-scripts, LyCORIS, OneTrainer, diffusers
and peft.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from model.errors import LoraUnusable
from model.files.lora.targets import DOTTED_PREFIXES, LoraPart
from model.files.safetensors_header import StoredTensor, first_keys

Method = Literal[
    "lora", "lokr", "loha", "embedding", "diff", "norm", "bias", "oft", "boft", "glora", "ia3",
    "peft_ia3", "peft_oft",
]  # fmt: skip

_ADAPTER_NAME = r"(?:\.(?!weight$|bias$)\w+)?"
_ROLES = (
    (re.compile(rf"\.lora_(?:down|A){_ADAPTER_NAME}(?:\.weight)?$"), "down"),
    (re.compile(rf"\.lora_(?:up|B){_ADAPTER_NAME}(?:\.weight)?$"), "up"),
    (re.compile(r"(?:\.lora|_lora|\.lora_linear_layer)\.down\.weight$"), "down"),
    (re.compile(r"(?:\.lora|_lora|\.lora_linear_layer)\.up\.weight$"), "up"),
    (re.compile(rf"\.lora_embedding_A{_ADAPTER_NAME}$"), "embedding_a"),
    (re.compile(rf"\.lora_embedding_B{_ADAPTER_NAME}$"), "embedding_b"),
    (re.compile(r"\.lora_magnitude_vector(?:\.\w+)?(?:\.weight)?$"), "magnitude"),
    (re.compile(rf"\.ia3_l{_ADAPTER_NAME}$"), "ia3_l"),
    (re.compile(r"\.oft_R\.scaled_oft$"), "scaled_oft"),
    (re.compile(rf"\.oft_R{_ADAPTER_NAME}(?:\.weight)?$"), "oft_r"),
    (re.compile(rf"\.oft_embedding_R{_ADAPTER_NAME}(?:\.weight)?$"), "oft_embedding_r"),
    (re.compile(r"\.([ab][12])\.weight$"), None),
    (
        re.compile(
            r"\.(lokr_w[12](?:_[ab])?|hada_w[12]_[ab]|alpha|dora_scale|diff|diff_b|w_norm|b_norm"
            r"|oft_blocks|rescale|on_input)$"
        ),
        None,
    ),
)
"""The endings of keys, each with the tensor's role in the formula; None: the ending itself."""

_ADAPTER = re.compile(
    r"\.lora_(?:down|up|A|B|embedding_[AB]|magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<name>\w+))?(?:\.weight)?$"
)
"""The tensors of peft that may carry the name of their adapter."""

_WRAPPERS = re.compile(
    r"(?:base_model\.model|_orig_mod)\.|(?:^|(?<=\.))module\.|\.processor(?=\.|$)"
)
"""Names that peft, torch.compile, distributed training and diffusers' attention processors add."""

_SCALED = frozenset({"alpha", "dora_scale"})
_NO_ROLES: frozenset[str] = frozenset()
_METHODS: tuple[tuple[Method, str, frozenset[str]], ...] = (
    ("lora", "down up", _SCALED | {"magnitude"}),
    ("loha", "hada_w1_a hada_w1_b hada_w2_a hada_w2_b", _SCALED),
    ("lokr", "lokr_w1 lokr_w2", _SCALED),
    ("lokr", "lokr_w1_a lokr_w1_b lokr_w2", _SCALED),
    ("lokr", "lokr_w1 lokr_w2_a lokr_w2_b", _SCALED),
    ("lokr", "lokr_w1_a lokr_w1_b lokr_w2_a lokr_w2_b", _SCALED),
    ("embedding", "embedding_a embedding_b", frozenset({"alpha"})),
    ("diff", "diff", _NO_ROLES),
    ("norm", "w_norm", _NO_ROLES),
    ("oft", "oft_blocks", frozenset({"alpha", "rescale"})),
    ("glora", "a1 a2 b1 b2", frozenset({"alpha"})),
    ("ia3", "ia3 on_input", _NO_ROLES),
    ("peft_ia3", "ia3_l", _NO_ROLES),
    ("peft_oft", "oft_r", frozenset({"scaled_oft"})),
    ("peft_oft", "oft_embedding_r", _NO_ROLES),
)
"""The methods, each with the roles that it needs and those that it may have."""

_BIAS_ROLES = frozenset({"diff_b", "b_norm"})
_RANK_ROLES = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "embedding_a")
"""The tensors whose first axis is the rank, in order of preference."""


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
            return _WRAPPERS.sub("", key[: match.start()]), role or match[1]
    return None


def group_keys(entries: Mapping[str, StoredTensor]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Group keys by module name and role. Also returns the keys that are not LoRA keys.

    Raises:
        LoraUnusable: there are no tensors, or one module has two tensors of one role or tensors of
            two adapters.
    """
    if not entries:
        raise LoraUnusable("has no tensors")
    grouped: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for key in entries:
        # IA3 calls its vector `weight`, as checkpoints do; its switch `on_input` tells them apart.
        is_ia3 = key.endswith(".weight") and f"{key.removesuffix('.weight')}.on_input" in entries
        found = (key.removesuffix(".weight"), "ia3") if is_ia3 else split_key(key)
        if found is None:
            unknown.append(key)
            continue
        stem, role = found
        if role in grouped[stem]:
            raise LoraUnusable(f"has a tensor twice: {first_keys([grouped[stem][role], key])}")
        grouped[stem][role] = key
    for keys in grouped.values():
        _require_one_adapter(keys.values())
    return dict(grouped), unknown


def _require_one_adapter(keys: Iterable[str]) -> None:
    named = {match["name"]: key for key in keys if (match := _ADAPTER.search(key))}
    if len(named) > 1:
        raise LoraUnusable(f"mixes tensors of two adapters: {first_keys(sorted(named.values()))}")


def split_methods(
    keys: Mapping[str, str], entries: Mapping[str, StoredTensor]
) -> list[tuple[Method, dict[str, str]]]:
    """The changes of one module: at most one of its weight and one of its bias.

    Raises:
        LoraUnusable: a tensor of the method is missing, or tensors of two methods are mixed.
    """
    found: list[tuple[Method, dict[str, str]]] = []
    of_bias = {role: key for role, key in keys.items() if role in _BIAS_ROLES}
    of_weight = {role: key for role, key in keys.items() if role not in _BIAS_ROLES}
    method = _method(of_weight.keys(), entries, of_weight)
    if (of_weight and method is None) or len(of_bias) > 1:
        raise LoraUnusable(f"has an incomplete set of tensors: {first_keys(sorted(keys.values()))}")
    if method is not None:
        found.append((method, of_weight))
    if of_bias:
        found.append(("bias", of_bias))
    return found


def _method(
    roles: Iterable[str], entries: Mapping[str, StoredTensor], keys: Mapping[str, str]
) -> Method | None:
    have = frozenset(roles)
    for method, needed, optional in _METHODS:
        required = frozenset(needed.split())
        if required <= have <= required | optional and not {"dora_scale", "magnitude"} <= have:
            is_butterfly = method == "oft" and len(entries[keys["oft_blocks"]].shape) == 4
            return "boft" if is_butterfly else method
    return None


def rank_of(keys: Mapping[str, str], entries: Mapping[str, StoredTensor]) -> int | None:
    """The rank of a module's change; None if the method has none."""
    for role in _RANK_ROLES:
        if role in keys and entries[keys[role]].shape:
            return entries[keys[role]].shape[0]
    if "a1" in keys and len(entries[keys["a1"]].shape) > 1:
        return min(entries[keys["a1"]].shape[:2])  # older files exchange a1 and a2
    return None


def summarise(entries: Mapping[str, StoredTensor]) -> LoraSummary:
    """Describe a file without the model.

    Raises:
        LoraUnusable: a key is not a LoRA key, or a tensor of a method is missing.
    """
    grouped, unknown = group_keys(entries)
    if unknown:
        raise LoraUnusable(f"has keys of an unknown LoRA method: {first_keys(sorted(unknown))}")
    return describe_groups(grouped, entries)


def describe_groups(
    grouped: Mapping[str, Mapping[str, str]], entries: Mapping[str, StoredTensor]
) -> LoraSummary:
    """Describe grouped keys: their methods, the largest rank, and the parts that they change."""
    methods = {
        "dora" if method == "lora" and keys.keys() & {"dora_scale", "magnitude"} else method
        for keys in grouped.values()
        for method, _ in split_methods(keys, entries)
    }
    ranks = [rank for keys in grouped.values() if (rank := rank_of(keys, entries)) is not None]
    parts = {_part_of(stem) for stem in grouped}
    return LoraSummary(
        method=" + ".join(sorted({method.removeprefix("peft_") for method in methods})),
        rank=max(ranks, default=None),
        parts=tuple(part for part in DOTTED_PREFIXES if part in parts),
    )


def _part_of(stem: str) -> LoraPart:
    if re.match(r"lora_te1?_|text_encoders?\.", stem):
        return "text_encoder"
    return "adapter" if re.search(r"llm[_.]adapter|text_conditioner", stem) else "transformer"
