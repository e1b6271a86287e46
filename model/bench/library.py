"""Builds the modules of diffusers and transformers, to compare with ours.

The service itself does not import these libraries, because that takes seconds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from model.card import Card, shipped_folder
from model.files.checkpoint_check import check_part, vae_settings
from model.files.layouts import locate_parts
from model.files.weight_shapes import AdapterSizes, TextEncoderSizes, TransformerSizes
from model.network.architectures import ModulePlan, inner_ratio, transformer_config
from model.network.weights import load_weights

_Module = TypeVar("_Module", bound=nn.Module)


def library_transformer(sizes: TransformerSizes, card: Card) -> CosmosTransformer3DModel:
    """The library's transformer of these sizes on the meta device."""
    config = transformer_config(sizes, card)
    module: CosmosTransformer3DModel = _on_meta_device(lambda: CosmosTransformer3DModel(**config))
    return module


def library_conditioner(sizes: AdapterSizes, card: Card) -> AnimaTextConditioner:
    """The library's text adapter of these sizes on the meta device; its rotary table is real."""
    config = {
        "source_dim": sizes.source_width,
        "target_dim": sizes.target_width,
        "model_dim": sizes.width,
        "num_layers": sizes.blocks,
        "num_attention_heads": sizes.heads,
        "mlp_ratio": inner_ratio(sizes.mlp, sizes.width),
        "target_vocab_size": sizes.vocabulary,
        "min_sequence_length": card.text.context_rows,
    }
    module: AnimaTextConditioner = _on_meta_device(lambda: AnimaTextConditioner(**config))
    module.rotary_emb = type(module.rotary_emb)(sizes.head_dim)
    return module


def library_text_encoder(sizes: TextEncoderSizes, card: Card) -> Qwen3Model:
    """The library's Qwen3 of these sizes on the meta device; its rotary table is real."""
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
    return module


def library_vae(card: Card) -> AutoencoderKLQwenImage:
    """The library's autoencoder on the meta device."""
    config = vae_settings(card)
    module: AutoencoderKLQwenImage = _on_meta_device(lambda: AutoencoderKLQwenImage(**config))
    return module


_BUILDERS: dict[str, Callable[[Any, Card], Any]] = {
    "transformer": library_transformer,
    "conditioner": library_conditioner,
    "text_encoder": library_text_encoder,
    "vae": lambda _, card: library_vae(card),
}


def load_library_module(
    name: str,
    card: Card,
    checkpoint_dir: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """The library's module of one of the four parts, with a checkpoint's weights."""
    part = locate_parts(card.files, checkpoint_dir or shipped_folder(card)).parts[name]
    checked = check_part(name, part, card)
    module = _BUILDERS[name](checked.sizes, card)
    return load_weights(ModulePlan(module, part, checked.stored), device, dtype)


def _on_meta_device(build: Callable[[], _Module]) -> _Module:
    with torch.device("meta"):
        return build()
