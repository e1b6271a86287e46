"""The library's transformer with random weights, and random inputs for it."""

from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor, nn

CONTEXT_ROWS = 60
TEXT_WIDTH = 40


@dataclass(frozen=True)
class Case:
    """Images of a guidance batch: (images, C, 1, h, w), their levels, two contexts for each."""

    latents: Tensor
    sigmas: list[float]
    contexts: Tensor
    tokens: list[int]


def random_transformer(seed: int, *, heads: int = 3, blocks: int = 4) -> CosmosTransformer3DModel:
    """Weights that keep the variance of activations, so that no part of the network vanishes."""
    module: CosmosTransformer3DModel = CosmosTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=32,
        num_layers=blocks,
        mlp_ratio=4.0,
        text_embed_dim=TEXT_WIDTH,
        adaln_lora_dim=12,
        max_size=(1, 512, 512),
        rope_scale=(1.0, 4.0, 4.0),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    )
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        is_norm = weight.ndim == 1
        std = 0.2 if is_norm else weight.shape[1] ** -0.5
        nn.init.normal_(weight, float(is_norm), std, generator=generator)
    module.requires_grad_(requires_grad=False).eval()
    return module


def random_case(seed: int, images: int, height: int, width: int) -> Case:
    """Latents of this size, at different levels, with texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randn(2 * images, CONTEXT_ROWS, TEXT_WIDTH, generator=generator)
    tokens = torch.randint(1, CONTEXT_ROWS + 1, (2 * images,), generator=generator).tolist()
    for context, length in zip(contexts, tokens, strict=True):
        context[length:] = 0
    return Case(
        torch.randn(images, 16, 1, height, width, generator=generator),
        torch.linspace(0.98, 0.05, images).tolist(),
        contexts,
        tokens,
    )


@torch.no_grad()
def library_velocity(module: CosmosTransformer3DModel, case: Case) -> Tensor:
    """What the library's own forward gives, float32: two rows for each image."""
    dtype = module.proj_out.weight.dtype
    (velocity,) = module(
        case.latents.repeat_interleave(2, 0).to(dtype),
        torch.tensor(case.sigmas).repeat_interleave(2),
        case.contexts.to(dtype),
        return_dict=False,
    )
    found: Tensor = velocity.float()
    return found
