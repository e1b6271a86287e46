"""Checks the stored parts of a checkpoint against its card: names, shapes and settings.

The one check that loading, inspecting and converting share. Sizes come from the shapes of the
tensors, other settings from the card. An error names the tensor that does not fit. Does not need
torch.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.card import Card
from model.errors import CheckpointError
from model.files.layouts import ORIGINAL, CheckpointPart
from model.files.safetensors_header import StoredTensor, first_keys
from model.files.stored_weights.finite import vanishes
from model.files.weight_shapes import (
    PATCH,
    AdapterSizes,
    Shapes,
    TextEncoderSizes,
    TransformerSizes,
    adapter_shapes,
    text_encoder_shapes,
    transformer_shapes,
    vae_shapes,
)

PATCHES = "patch_embed.proj.weight"
"""The library's name of the weight that may have columns for the padding mask."""

VocabularySizes = Callable[[Path, Path], tuple[int, int]]
"""Loads Qwen's and T5's tokenizer from their folders and returns their numbers of tokens."""

_MIN_HEAD_DIM = 12
"""The rotary positions of the transformer's three axes need this width."""

_NEVER_ZERO = re.compile(
    r"(^|\.)(embed|embed_tokens|patch_embed\.proj|time_embed\.t_embedder\.linear_1|to_[qkv]"
    r"|ff\.net\.0\.proj|[qkv]_proj|gate_proj|up_proj|mlp\.0|conv_in)\.weight$"
)
"""Weights that start random and that no training makes zero, by their library's names.

Not so those that start as zero or that are zero in inserted blocks: the last projection of a
branch, modulations, biases.
"""

_INDEX = re.compile(r"(?:^|[._])(?:blocks|layers)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """A part whose tensors fit. `stored` has them by the names in the library's module.

    `sizes` is None for the VAE, whose sizes are in the card.
    """

    part: CheckpointPart
    sizes: Any
    stored: dict[str, StoredTensor]


def check_parts(parts: Mapping[str, CheckpointPart], card: Card) -> dict[str, CheckedPart]:
    """Check all `parts`, and that they fit together. Parts may be absent.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape, a folder's settings
            differ from the card's, or the widths of two parts differ.
    """
    _require_adapter(parts)
    checked = {name: check_part(name, part, card) for name, part in parts.items()}
    _require_matching_widths(checked)
    return checked


def find_problems(
    parts: Mapping[str, CheckpointPart], card: Card, vocabularies: tuple[int, int] | None = None
) -> list[str]:
    """Everything that `check_parts` and `require_vocabularies` refuse, at most one per part."""
    checked: dict[str, CheckedPart] = {}
    problems = []
    for name, part in parts.items():
        try:
            checked[name] = check_part(name, part, card)
        except CheckpointError as exc:
            problems.append(str(exc))
    try:
        _require_adapter(parts)
        _require_matching_widths(checked)
        if vocabularies:
            require_vocabularies(checked, vocabularies)
    except CheckpointError as exc:
        problems.append(str(exc))
    return problems


def check_part(name: str, part: CheckpointPart, card: Card) -> CheckedPart:
    """Check one part, `name` being one of the four parts' names. Raises as `check_parts`."""
    return _CHECKS[name](part, card)


def require_vocabularies(checked: Mapping[str, CheckedPart], sizes: tuple[int, int]) -> None:
    """Check that the text encoder and the adapter embed all tokens of Qwen's and T5's tokenizer."""
    for name, tokens in zip(("text_encoder", "conditioner"), sizes, strict=True):
        if name in checked and tokens > (rows := checked[name].sizes.vocabulary):
            raise CheckpointError(
                f"{checked[name].part.path} embeds {rows} tokens; its tokenizer has {tokens}"
            )


def _check_transformer(part: CheckpointPart, card: Card) -> CheckedPart:
    architecture = card.transformer
    _require_settings(part, part.config, {"rope_scale": list(architecture.rope_scale)})
    with _shape_errors(part):
        hidden, columns = part.shape(PATCHES)
        (head_dim,) = part.shape("transformer_blocks.0.attn1.norm_q.weight")
        if head_dim < _MIN_HEAD_DIM:
            raise ValueError(f"heads of width {head_dim}")
        sizes = TransformerSizes(
            latent_channels=architecture.latent_channels,
            heads=_heads(hidden, head_dim),
            head_dim=head_dim,
            blocks=_count(part),
            mlp=part.shape("transformer_blocks.0.ff.net.0.proj.weight")[0],
            text_width=part.shape("transformer_blocks.0.attn2.to_k.weight")[1],
            modulation_rank=part.shape("transformer_blocks.0.norm1.linear_1.weight")[0],
        )
    shapes = transformer_shapes(sizes)
    # The published network has one more channel, a padding mask that is always zero. Loading
    # drops its patch columns, the last ones.
    with_mask = (hidden, PATCH**2 * (architecture.latent_channels + 1))
    if (hidden, columns) == with_mask:
        shapes[PATCHES] = with_mask
    return CheckedPart(part, sizes, _fitting(part, shapes))


def _check_conditioner(part: CheckpointPart, card: Card) -> CheckedPart:
    _require_settings(part, part.config, {"min_sequence_length": card.text.context_rows})
    with _shape_errors(part):
        vocabulary, target = part.shape("embed.weight")
        width, source = part.shape("blocks.0.cross_attn.k_proj.weight")
        (head_dim,) = part.shape("blocks.0.cross_attn.q_norm.weight")
        sizes = AdapterSizes(
            source_width=source,
            target_width=target,
            width=width,
            heads=_heads(width, head_dim),
            blocks=_count(part),
            mlp=part.shape("blocks.0.mlp.0.weight")[0],
            vocabulary=vocabulary,
        )
    return CheckedPart(part, sizes, _fitting(part, adapter_shapes(sizes)))


def _check_text_encoder(part: CheckpointPart, card: Card) -> CheckedPart:
    settings = {**part.config, **(part.config.get("rope_parameters") or {})}
    expected = {
        "rope_type": "default",
        "rope_theta": card.text.qwen_rope_theta,
        "rms_norm_eps": card.text.qwen_rms_norm_eps,
    }
    _require_settings(part, settings, expected)
    with _shape_errors(part):
        vocabulary, hidden = part.shape("embed_tokens.weight")
        (head_dim,) = part.shape("layers.0.self_attn.q_norm.weight")
        heads = _heads(part.shape("layers.0.self_attn.q_proj.weight")[0], head_dim)
        sizes = TextEncoderSizes(
            width=hidden,
            heads=heads,
            key_heads=_heads(part.shape("layers.0.self_attn.k_proj.weight")[0], head_dim),
            head_dim=head_dim,
            blocks=_count(part),
            mlp=part.shape("layers.0.mlp.gate_proj.weight")[0],
            vocabulary=vocabulary,
        )
        if heads % sizes.key_heads:
            raise ValueError(f"{heads} heads for queries, {sizes.key_heads} for keys")
    return CheckedPart(part, sizes, _fitting(part, text_encoder_shapes(sizes)))


def _check_vae(part: CheckpointPart, card: Card) -> CheckedPart:
    _require_settings(part, part.config, vae_settings(card))
    shapes = vae_shapes(card.vae, card.transformer.latent_channels)
    return CheckedPart(part, None, _fitting(part, shapes))


def vae_settings(card: Card) -> dict[str, Any]:
    """The settings of the library's VAE, by its names."""
    architecture = card.vae
    return {
        "base_dim": architecture.base_dim,
        "z_dim": card.transformer.latent_channels,
        "dim_mult": list(architecture.dim_mult),
        "num_res_blocks": architecture.num_res_blocks,
        "temperal_downsample": list(architecture.temperal_downsample),
        "latents_mean": list(architecture.latents_mean),
        "latents_std": list(architecture.latents_std),
    }


_CHECKS: dict[str, Callable[[CheckpointPart, Card], CheckedPart]] = {
    "transformer": _check_transformer,
    "conditioner": _check_conditioner,
    "text_encoder": _check_text_encoder,
    "vae": _check_vae,
}


def _fitting(part: CheckpointPart, shapes: Shapes) -> dict[str, StoredTensor]:
    """The stored tensor for every expected weight. CheckpointError if one does not fit."""
    with _shape_errors(part):
        keys = {name: part.stored_name(name) for name in shapes}
    missing = sorted(set(keys.values()) - set(part.tensors))
    unknown = sorted(set(part.tensors) - set(keys.values()))
    for problem, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            raise CheckpointError(f"{part.path} {problem} {first_keys(names)}")
    for name, shape in shapes.items():
        tensor = part.tensors[keys[name]]
        if tensor.count == 0:
            raise CheckpointError(f"{tensor.path}: {tensor.key} is empty, shape {tensor.shape}")
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.path}: {tensor.key} has shape {tensor.shape}, "
                f"but the other weights need {shape}"
            )
        if _NEVER_ZERO.search(name):
            _require_numbers(tensor)
    return {name: part.tensors[key] for name, key in keys.items()}


def _require_numbers(tensor: StoredTensor) -> None:
    """Refuse a weight that vanishes: it was never written, or its scale is wrong."""
    try:
        is_damaged = vanishes(tensor)
    except OSError as exc:
        raise CheckpointError(f"{tensor.path} cannot be read: {exc.strerror}") from exc
    if is_damaged:
        raise CheckpointError(
            f"{tensor.path}: all numbers of {tensor.key} are zero or nearly zero; the file is "
            "damaged, for example by an interrupted download"
        )


def _require_adapter(parts: Mapping[str, CheckpointPart]) -> None:
    """Check that a file of the transformer has the adapter: a card names no other file for it."""
    pair = ("transformer", "conditioner")
    for name, other in (pair, pair[::-1]):
        if name in parts and other not in parts and parts[name].layout == ORIGINAL:
            raise CheckpointError(f"{parts[name].path} has no {other}")


def _require_matching_widths(checked: Mapping[str, CheckedPart]) -> None:
    adapter = checked.get("conditioner")
    if adapter is None:
        return
    transformer, text_encoder = checked.get("transformer"), checked.get("text_encoder")
    if transformer and transformer.sizes.text_width != adapter.sizes.target_width:
        raise CheckpointError(
            f"{transformer.part.path} has text width {transformer.sizes.text_width}; "
            f"its adapter has {adapter.sizes.target_width}"
        )
    if text_encoder and text_encoder.sizes.width != adapter.sizes.source_width:
        raise CheckpointError(
            f"{adapter.part.path} has Qwen3 width {adapter.sizes.source_width}; "
            f"{text_encoder.part.path} has {text_encoder.sizes.width}"
        )


@contextmanager
def _shape_errors(part: CheckpointPart) -> Iterator[None]:
    """Convert errors in reading sizes from shapes into CheckpointError."""
    try:
        yield
    except KeyError as exc:
        raise CheckpointError(
            f"{part.path} lacks {exc.args[0]}; is it another type of model?"
        ) from exc
    except (ValueError, IndexError, ZeroDivisionError) as exc:
        raise CheckpointError(f"{part.path}: shapes of another architecture: {exc}") from exc


def _require_settings(
    part: CheckpointPart, stored: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Check the library's configuration against the card. Missing settings are accepted."""
    for name, value in expected.items():
        if stored.get(name, value) != value:
            raise CheckpointError(
                f"{part.path / 'config.json'} has {name} {stored[name]}; the card has {value}"
            )


def _heads(width: int, head_dim: int) -> int:
    """Number of attention heads. ValueError if heads of even width do not fill `width`."""
    if width == 0 or width % head_dim or head_dim % 2:
        raise ValueError(f"heads of width {head_dim} in a width of {width}")
    return width // head_dim


def _count(part: CheckpointPart) -> int:
    """Number of blocks. Every block has tensors, so no index reaches the number of tensors."""
    last = max(int(match[1]) for key in part.tensors if (match := _INDEX.search(key)))
    if last >= len(part.tensors):
        raise ValueError(f"block {last} of {len(part.tensors)} tensors")
    return last + 1
