"""Builds the libraries' modules without weights, sized to fit the stored tensors.

Sizes come from the shapes of the tensors, other settings from the card. Every name and every
shape is checked against the module. An error names the tensor that does not fit.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from model.card import TextArchitecture, TransformerArchitecture, VaeArchitecture
from model.errors import CheckpointError
from model.files.layouts import CheckpointPart
from model.files.safetensors_header import StoredTensor, first_keys

MAX_IMAGE_SIDE = 4096
"""The longest side in pixels that has positions. The library's default is 2048."""

_PATCH = 2
_VAE_SCALE = 8
_INDEX = re.compile(r"(?:^|[._])(?:blocks|layers)\.(\d+)\.")

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """A module without weights, and the stored tensor of each of its parameters."""

    module: Any
    part: CheckpointPart
    stored: dict[str, StoredTensor]


def plan_transformer(part: CheckpointPart, architecture: TransformerArchitecture) -> ModulePlan:
    """Plan the transformer. CheckpointError if the stored tensors do not fit."""
    _require_config(part, part.config, {"rope_scale": list(architecture.rope_scale)})
    with _shape_errors(part):
        hidden, columns = part.shape("patch_embed.proj.weight")
        (head_dim,) = part.shape("transformer_blocks.0.attn1.norm_q.weight")
        mlp, _ = part.shape("transformer_blocks.0.ff.net.0.proj.weight")
        config = {
            "in_channels": architecture.latent_channels,
            "out_channels": part.shape("proj_out.weight")[0] // _PATCH**2,
            "num_attention_heads": hidden // head_dim,
            "attention_head_dim": head_dim,
            "num_layers": _count(part),
            "mlp_ratio": _ratio(mlp, hidden),
            "text_embed_dim": part.shape("transformer_blocks.0.attn2.to_k.weight")[1],
            "adaln_lora_dim": part.shape("transformer_blocks.0.norm1.linear_1.weight")[0],
            "max_size": (1, MAX_IMAGE_SIDE // _VAE_SCALE, MAX_IMAGE_SIDE // _VAE_SCALE),
            "patch_size": (1, _PATCH, _PATCH),
            "rope_scale": architecture.rope_scale,
            # The published network has a 17th channel, a padding mask that is always zero. Its
            # patch columns, the last ones, are dropped: the results are the same, and the
            # library does not need torchvision.
            "concat_padding_mask": False,
            "extra_pos_embed_type": None,
        }
        module = _on_meta_device(lambda: CosmosTransformer3DModel(**config))
    with_mask = (hidden, _PATCH**2 * (architecture.latent_channels + 1))
    has_mask = (hidden, columns) == with_mask
    return _checked_plan(
        module, part, stored_shapes={"patch_embed.proj.weight": with_mask} if has_mask else {}
    )


def plan_conditioner(part: CheckpointPart, architecture: TextArchitecture) -> ModulePlan:
    """Plan the text adapter. CheckpointError if the stored tensors do not fit."""
    _require_config(part, part.config, {"min_sequence_length": architecture.context_rows})
    with _shape_errors(part):
        vocabulary, target = part.shape("embed.weight")
        width, source = part.shape("blocks.0.cross_attn.k_proj.weight")
        (head_dim,) = part.shape("blocks.0.cross_attn.q_norm.weight")
        config = {
            "source_dim": source,
            "target_dim": target,
            "model_dim": width,
            "num_layers": _count(part),
            "num_attention_heads": width // head_dim,
            "mlp_ratio": _ratio(part.shape("blocks.0.mlp.0.weight")[0], width),
            "target_vocab_size": vocabulary,
            "min_sequence_length": architecture.context_rows,
        }
        module = _on_meta_device(lambda: AnimaTextConditioner(**config))
    module.rotary_emb = type(module.rotary_emb)(head_dim)
    return _checked_plan(module, part)


def plan_text_encoder(part: CheckpointPart, architecture: TextArchitecture) -> ModulePlan:
    """Plan Qwen3. CheckpointError if the stored tensors do not fit."""
    rope = {"rope_type": "default", "rope_theta": architecture.qwen_rope_theta}
    stored = {**part.config, **(part.config.get("rope_parameters") or {})}
    _require_config(part, stored, {**rope, "rms_norm_eps": architecture.qwen_rms_norm_eps})
    with _shape_errors(part):
        vocabulary, hidden = part.shape("embed_tokens.weight")
        (head_dim,) = part.shape("layers.0.self_attn.q_norm.weight")
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=part.shape("layers.0.mlp.gate_proj.weight")[0],
            num_hidden_layers=_count(part),
            num_attention_heads=part.shape("layers.0.self_attn.q_proj.weight")[0] // head_dim,
            num_key_value_heads=part.shape("layers.0.self_attn.k_proj.weight")[0] // head_dim,
            head_dim=head_dim,
            rms_norm_eps=architecture.qwen_rms_norm_eps,
            rope_parameters=rope,
        )
        module = _on_meta_device(lambda: Qwen3Model(config))
    module.rotary_emb = type(module.rotary_emb)(config)
    return _checked_plan(module, part)


def plan_vae(part: CheckpointPart, architecture: VaeArchitecture, *, z_dim: int) -> ModulePlan:
    """Plan the autoencoder. CheckpointError if the stored tensors do not fit."""
    config = {
        "base_dim": architecture.base_dim,
        "z_dim": z_dim,
        "dim_mult": list(architecture.dim_mult),
        "num_res_blocks": architecture.num_res_blocks,
        "temperal_downsample": list(architecture.temperal_downsample),
        "latents_mean": list(architecture.latents_mean),
        "latents_std": list(architecture.latents_std),
    }
    _require_config(part, part.config, config)
    return _checked_plan(_on_meta_device(lambda: AutoencoderKLQwenImage(**config)), part)


def without_vae_encoder(plan: ModulePlan) -> ModulePlan:
    """Remove the encoder, which only input images need."""
    del plan.module.encoder, plan.module.quant_conv
    kept = plan.module.state_dict()
    return ModulePlan(plan.module, plan.part, {n: t for n, t in plan.stored.items() if n in kept})


def _on_meta_device(build: Callable[[], _Module]) -> _Module:
    """Build a module without memory for its weights.

    The caller must rebuild its rotary tables: they are empty too, and no file has them.
    """
    with torch.device("meta"):
        return build()


def _checked_plan(
    module: nn.Module,
    part: CheckpointPart,
    *,
    stored_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> ModulePlan:
    """Check a module against the stored tensors. `stored_shapes` are shapes that loading cuts."""
    wanted = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    wanted |= stored_shapes or {}
    with _shape_errors(part):
        keys = {name: part.stored_name(name) for name in wanted}
    missing = sorted(set(keys.values()) - set(part.tensors))
    unknown = sorted(set(part.tensors) - set(keys.values()))
    for problem, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            raise CheckpointError(f"{part.path} {problem} {first_keys(names)}")
    for name, shape in wanted.items():
        tensor = part.tensors[keys[name]]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.path}: {tensor.key} has shape {tensor.shape}, "
                f"but the other weights need {shape}"
            )
    return ModulePlan(module, part, {name: part.tensors[key] for name, key in keys.items()})


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


def _require_config(
    part: CheckpointPart, stored: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Check the library's configuration against the card. Missing settings are accepted."""
    for name, value in expected.items():
        if stored.get(name, value) != value:
            raise CheckpointError(
                f"{part.path / 'config.json'} has {name} {stored[name]}; the card has {value}"
            )


def _count(part: CheckpointPart) -> int:
    """Number of blocks. Every block has tensors, so no index reaches the number of tensors."""
    last = max(int(match[1]) for key in part.tensors if (match := _INDEX.search(key)))
    if last >= len(part.tensors):
        raise ValueError(f"block {last} of {len(part.tensors)} tensors")
    return last + 1


def _ratio(inner: int, outer: int) -> float:
    """The ratio for which int(outer * ratio) is `inner`, as the libraries compute it."""
    ratio = inner / outer
    return ratio if int(outer * ratio) == inner else math.nextafter(ratio, math.inf)
