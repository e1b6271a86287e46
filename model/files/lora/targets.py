"""Lists the weights of a checkpoint that LoRAs may change, with every name that files use for them.

Reads headers; does not need torch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from model.files.keymap import (
    adapter_to_library,
    adapter_to_original,
    transformer_to_library,
    transformer_to_original,
)
from model.files.layouts import ORIGINAL, CheckpointPart, LocatedParts

LoraPart = Literal["transformer", "adapter", "text_encoder"]
Shape = tuple[int, ...]

_PATCH_EMBED = "patch_embed.proj"
_COLUMNS_PER_CHANNEL = 4
"""A patch has 2 x 2 latent pixels. The last channel, the padding mask, is always zero: dropped."""

DOTTED_PREFIXES: dict[LoraPart, tuple[str, ...]] = {
    "transformer": (
        "diffusion_model.",
        "model.diffusion_model.",
        "net.",
        "transformer.",
        "unet.",
        "dit.",
        "pipe.dit.",
        "",
    ),
    "adapter": ("text_conditioner.",),
    "text_encoder": (
        "text_encoders.qwen3_06b.transformer.model.",
        "text_encoders.qwen3_06b.transformer.",
        "text_encoder.qwen3.",
        "text_encoder.model.",
        "text_encoder.",
    ),
}
FLAT_PREFIXES: dict[LoraPart, tuple[str, ...]] = {
    "transformer": ("lora_unet_", "lycoris_", "lora_transformer_"),
    "adapter": ("lora_text_conditioner_", "lycoris_text_conditioner_"),
    "text_encoder": ("lora_te_", "lora_te1_", "lora_te_model_", "lora_te1_model_"),
}


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """A module that a LoRA may change: its weight has `shape`, its bias `bias` numbers.

    The shape is (out, in) for a linear layer, (rows, dim) for an embedding, (dim,) for a norm.
    `original` is the module's name in the checkpoint's file. In the file the weight has
    `dropped_columns` more columns at its end, which loading drops.
    """

    part: LoraPart
    module: str
    original: str
    shape: Shape
    dropped_columns: int = 0
    bias: int | None = None


def make_target(part: LoraPart, module: str, shape: Shape, bias: int | None) -> LoraTarget:
    """The target of a module by its name in the library."""
    dropped = _COLUMNS_PER_CHANNEL if (part, module) == ("transformer", _PATCH_EMBED) else 0
    return LoraTarget(part, module, _original_name(part, module), shape, dropped, bias)


def _original_name(part: LoraPart, module: str) -> str:
    if part == "text_encoder":
        return module
    to_original = transformer_to_original if part == "transformer" else adapter_to_original
    return to_original(f"{module}.weight").removesuffix(".weight")


def read_targets(parts: LocatedParts, *, latent_channels: int) -> list[LoraTarget]:
    """The targets of a stored checkpoint, the same as those of the loaded one.

    Raises:
        KeyError: the checkpoint has a name that the architecture does not have.
    """
    found: list[LoraTarget] = []
    stored: tuple[tuple[LoraPart, CheckpointPart, Callable[[str], str]], ...] = (
        ("transformer", parts.parts["transformer"], transformer_to_library),
        ("adapter", parts.parts["conditioner"], adapter_to_library),
        ("text_encoder", parts.parts["text_encoder"], str),
    )
    for part, source, to_library in stored:
        rename = to_library if source.layout == ORIGINAL and part != "text_encoder" else str
        shapes = {
            rename(key.removeprefix(source.prefix)): tensor.shape
            for key, tensor in source.tensors.items()
        }
        for name, shape in shapes.items():
            module, _, parameter = name.rpartition(".")
            if parameter != "weight" or len(shape) not in (1, 2):
                continue
            if (part, module) == ("transformer", _PATCH_EMBED):
                shape = (shape[0], latent_channels * _COLUMNS_PER_CHANNEL)
            bias = shapes.get(f"{module}.bias")
            found.append(make_target(part, module, shape, bias[0] if bias else None))
    return found


def stem_table(targets: Iterable[LoraTarget]) -> dict[str, LoraTarget]:
    """Map every name that a LoRA file may use for a target to that target; see `find_stem`.

    Raises:
        ValueError: one name means two weights.
    """
    table: dict[str, LoraTarget] = {}
    for target in targets:
        for stem in _stems(target):
            if table.setdefault(stem, target) != target:
                raise ValueError(f"{stem} names both {table[stem].module} and {target.module}")
    return table


def find_stem(stem: str, table: Mapping[str, LoraTarget]) -> str:
    """The table's name for a module's name in a file, which may not be in the table.

    Converters that turn underscores into dots turn too many, as in `llm.adapter`. Without dots each
    name means one weight only.
    """
    flat = stem.replace(".", "_")
    return flat if stem not in table and flat in table else stem


def _stems(target: LoraTarget) -> Iterator[str]:
    names = {target.module, target.original}
    if target.module.endswith(".to_out.0"):  # the first LoRA layers of diffusers leave out the 0
        names.add(target.module.removesuffix(".0"))
    for name in names:
        # The adapter is stored in the transformer's file, under names with its own prefix.
        is_in_file = target.part == "adapter" and name == target.original
        part: LoraPart = "transformer" if is_in_file else target.part
        for prefix in DOTTED_PREFIXES[part]:
            yield prefix + name
            yield (prefix + name).replace(".", "_")
        yield from (prefix + name.replace(".", "_") for prefix in FLAT_PREFIXES[part])
