"""Builds the library's modules, without memory for weights, from what is stored of them.

What tensors can tell is read from their shapes, the rest from the card. Every name and every
shape is held against the module; what does not fit is refused by name.
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
"""Pixels; the library's positions end at 2048 unless told otherwise."""

_PATCH = 2
_VAE_SCALE = 8
_INDEX = re.compile(r"(?:^|[._])(?:blocks|layers)\.(\d+)\.")

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """A module without weights, and where each of its parameters is stored."""

    module: Any
    part: CheckpointPart
    stored: dict[str, StoredTensor]


def plan_transformer(part: CheckpointPart, architecture: TransformerArchitecture) -> ModulePlan:
    """Plan the network; blocks and widths are the tensors'. CheckpointError if it does not fit."""
    _require_config(part, part.config, {"rope_scale": list(architecture.rope_scale)})
    with _needs(part):
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
            # patch columns, the last ones, are left out: the same numbers without torchvision.
            "concat_padding_mask": False,
            "extra_pos_embed_type": None,
        }
        module = _meta(lambda: CosmosTransformer3DModel(**config))
    wide = (hidden, _PATCH**2 * (architecture.latent_channels + 1))
    has_mask = (hidden, columns) == wide
    return _checked(module, part, widened={"patch_embed.proj.weight": wide} if has_mask else {})


def plan_conditioner(part: CheckpointPart, architecture: TextArchitecture) -> ModulePlan:
    """Plan the text adapter. CheckpointError if it does not fit."""
    _require_config(part, part.config, {"min_sequence_length": architecture.context_rows})
    with _needs(part):
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
        module = _meta(lambda: AnimaTextConditioner(**config))
    module.rotary_emb = type(module.rotary_emb)(head_dim)
    return _checked(module, part)


def plan_text_encoder(part: CheckpointPart, architecture: TextArchitecture) -> ModulePlan:
    """Plan Qwen3. CheckpointError if it does not fit."""
    rope = {"rope_type": "default", "rope_theta": architecture.qwen_rope_theta}
    said = {**part.config, **(part.config.get("rope_parameters") or {})}
    _require_config(part, said, {**rope, "rms_norm_eps": architecture.qwen_rms_norm_eps})
    with _needs(part):
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
        module = _meta(lambda: Qwen3Model(config))
    module.rotary_emb = type(module.rotary_emb)(config)
    return _checked(module, part)


def plan_vae(part: CheckpointPart, architecture: VaeArchitecture, *, z_dim: int) -> ModulePlan:
    """Plan the autoencoder. CheckpointError if it does not fit."""
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
    return _checked(_meta(lambda: AutoencoderKLQwenImage(**config)), part)


def without_vae_encoder(plan: ModulePlan) -> ModulePlan:
    """Leave out what only pictures as input need."""
    del plan.module.encoder, plan.module.quant_conv
    kept = plan.module.state_dict()
    return ModulePlan(plan.module, plan.part, {n: t for n, t in plan.stored.items() if n in kept})


def _meta(build: Callable[[], _Module]) -> _Module:
    """Build a module without memory for its weights.

    Its rotary tables, which no file holds, are as empty as the weights: build those anew.
    """
    with torch.device("meta"):
        return build()


def _checked(
    module: nn.Module, part: CheckpointPart, *, widened: Mapping[str, tuple[int, ...]] | None = None
) -> ModulePlan:
    """Hold a module against what is stored; `widened` has shapes that are cut at loading."""
    wanted = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    wanted |= widened or {}
    with _needs(part):
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
def _needs(part: CheckpointPart) -> Iterator[None]:
    """Turn what goes wrong while sizes are read from shapes into a CheckpointError."""
    try:
        yield
    except KeyError as exc:
        raise CheckpointError(
            f"{part.path} lacks {exc.args[0]}; is it another kind of model?"
        ) from exc
    except (ValueError, IndexError, ZeroDivisionError) as exc:
        raise CheckpointError(f"{part.path}: shapes of another architecture: {exc}") from exc


def _require_config(
    part: CheckpointPart, said: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """What the library wrote beside the weights must be what the card says; it may say nothing."""
    for name, value in expected.items():
        if said.get(name, value) != value:
            raise CheckpointError(
                f"{part.path / 'config.json'} has {name} {said[name]}; the card has {value}"
            )


def _count(part: CheckpointPart) -> int:
    """Number of blocks: every block has tensors, so an index beyond their number is no index."""
    last = max(int(match[1]) for key in part.tensors if (match := _INDEX.search(key)))
    if last >= len(part.tensors):
        raise ValueError(f"block {last} of {len(part.tensors)} tensors")
    return last + 1


def _ratio(inner: int, outer: int) -> float:
    """The ratio from which the libraries get `inner` back as int(outer * ratio)."""
    ratio = inner / outer
    return ratio if int(outer * ratio) == inner else math.nextafter(ratio, math.inf)
