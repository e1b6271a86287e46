"""Builds the libraries' modules without weights, in the sizes of the checked parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from model.card import Card
from model.files.checkpoint_check import CheckedPart, vae_settings
from model.files.layouts import CheckpointPart
from model.files.safetensors_header import StoredTensor
from model.files.weight_shapes import PATCH, AdapterSizes, TextEncoderSizes, TransformerSizes

MAX_IMAGE_SIDE = 4096
"""The longest side in pixels that has positions. The library's default is 2048."""

_VAE_SCALE = 8

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """A module without weights, and the stored tensor of each of its parameters."""

    module: Any
    part: CheckpointPart
    stored: dict[str, StoredTensor]


def plan_transformer(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the transformer without weights."""
    return _plan(empty_transformer(checked.sizes, card), checked)


def empty_transformer(sizes: TransformerSizes, card: Card) -> CosmosTransformer3DModel:
    """The library's transformer of these sizes on the meta device."""
    config = {
        "in_channels": sizes.latent_channels,
        "out_channels": sizes.latent_channels,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": sizes.head_dim,
        "num_layers": sizes.blocks,
        "mlp_ratio": _ratio(sizes.mlp, sizes.width),
        "text_embed_dim": sizes.text_width,
        "adaln_lora_dim": sizes.modulation_rank,
        "max_size": (1, MAX_IMAGE_SIDE // _VAE_SCALE, MAX_IMAGE_SIDE // _VAE_SCALE),
        "patch_size": (1, PATCH, PATCH),
        "rope_scale": card.transformer.rope_scale,
        # The results are the same without the channel of the padding mask, which is always
        # zero, and the library does not need torchvision.
        "concat_padding_mask": False,
        "extra_pos_embed_type": None,
    }
    module: CosmosTransformer3DModel = _on_meta_device(lambda: CosmosTransformer3DModel(**config))
    return module


def plan_conditioner(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the text adapter without weights."""
    sizes: AdapterSizes = checked.sizes
    config = {
        "source_dim": sizes.source_width,
        "target_dim": sizes.target_width,
        "model_dim": sizes.width,
        "num_layers": sizes.blocks,
        "num_attention_heads": sizes.heads,
        "mlp_ratio": _ratio(sizes.mlp, sizes.width),
        "target_vocab_size": sizes.vocabulary,
        "min_sequence_length": card.text.context_rows,
    }
    module = _on_meta_device(lambda: AnimaTextConditioner(**config))
    module.rotary_emb = type(module.rotary_emb)(sizes.head_dim)
    return _plan(module, checked)


def plan_text_encoder(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build Qwen3 without weights."""
    sizes: TextEncoderSizes = checked.sizes
    config = Qwen3Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.blocks,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        head_dim=sizes.head_dim,
        rms_norm_eps=card.text.qwen_rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": card.text.qwen_rope_theta},
    )
    module = _on_meta_device(lambda: Qwen3Model(config))
    module.rotary_emb = type(module.rotary_emb)(config)
    return _plan(module, checked)


def plan_vae(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the autoencoder without weights."""
    config = vae_settings(card)
    return _plan(_on_meta_device(lambda: AutoencoderKLQwenImage(**config)), checked)


def without_vae_encoder(plan: ModulePlan) -> ModulePlan:
    """Remove the encoder, which only input images need."""
    del plan.module.encoder, plan.module.quant_conv
    kept = plan.module.state_dict()
    return ModulePlan(plan.module, plan.part, {n: t for n, t in plan.stored.items() if n in kept})


def _plan(module: nn.Module, checked: CheckedPart) -> ModulePlan:
    return ModulePlan(module, checked.part, checked.stored)


def _on_meta_device(build: Callable[[], _Module]) -> _Module:
    """Build a module without memory for its weights.

    The caller must rebuild its rotary tables: they are empty too, and no file has them.
    """
    with torch.device("meta"):
        return build()


def _ratio(inner: int, outer: int) -> float:
    """The ratio for which int(outer * ratio) is `inner`, as the libraries compute it."""
    ratio = inner / outer
    return ratio if int(outer * ratio) == inner else math.nextafter(ratio, math.inf)
