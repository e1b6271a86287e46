"""Builds the modules of the checked parts without weights.

They have the names of the libraries' modules, and compute with what stands in this package.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from model.card import Card
from model.files.checkpoint_check import CheckedPart
from model.files.layouts import CheckpointPart
from model.files.safetensors_header import StoredTensor
from model.files.weight_shapes import (
    PATCH,
    TransformerSizes,
    adapter_shapes,
    text_encoder_shapes,
    transformer_shapes,
)
from model.network.vae.modules import Autoencoder
from model.network.weight_tree import Float32Tree, WeightTree

MAX_IMAGE_SIDE = 4096
"""The longest side in pixels that has positions. The library's default is 2048."""

_VAE_SCALE = 8


@dataclass(frozen=True, slots=True)
class ModulePlan:
    """A module without weights, and the stored tensor of each of its parameters."""

    module: Any
    part: CheckpointPart
    stored: dict[str, StoredTensor]


def plan_transformer(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the transformer without weights."""
    return _plan(empty_transformer(checked.sizes, card), checked)


def empty_transformer(sizes: TransformerSizes, card: Card) -> WeightTree:
    """The transformer of these sizes on the meta device."""
    config = SimpleNamespace(**transformer_config(sizes, card))
    return WeightTree(transformer_shapes(sizes), config)


def transformer_config(sizes: TransformerSizes, card: Card) -> dict[str, Any]:
    """The settings of diffusers' `CosmosTransformer3DModel`, by its names."""
    return {
        "in_channels": sizes.latent_channels,
        "out_channels": sizes.latent_channels,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": sizes.head_dim,
        "num_layers": sizes.blocks,
        "mlp_ratio": inner_ratio(sizes.mlp, sizes.width),
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


def plan_conditioner(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the text adapter without weights."""
    return _plan(Float32Tree(adapter_shapes(checked.sizes)), checked)


def plan_text_encoder(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build Qwen3 without weights."""
    return _plan(Float32Tree(text_encoder_shapes(checked.sizes)), checked)


def plan_vae(checked: CheckedPart, card: Card) -> ModulePlan:
    """Build the autoencoder without weights, and without those between frames."""
    with torch.device("meta"):
        module = Autoencoder(card.vae, card.transformer.latent_channels)
    return _needed(_plan(module, checked))


def without_vae_encoder(plan: ModulePlan) -> ModulePlan:
    """Remove the encoder, which only input images need."""
    del plan.module.encoder, plan.module.quant_conv
    return _needed(plan)


def _plan(module: Any, checked: CheckedPart) -> ModulePlan:
    return ModulePlan(module, checked.part, checked.stored)


def _needed(plan: ModulePlan) -> ModulePlan:
    kept = plan.module.state_dict()
    return ModulePlan(plan.module, plan.part, {n: t for n, t in plan.stored.items() if n in kept})


def inner_ratio(inner: int, outer: int) -> float:
    """The ratio for which int(outer * ratio) is `inner`, as the libraries compute it."""
    found = inner / outer
    return found if int(outer * found) == inner else math.nextafter(found, math.inf)
