"""One evaluation of the network: latents, noise level and text context in, velocity out.

Knows no sampler, no guidance and no tokens.
"""

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor


def predict_velocity(
    transformer: CosmosTransformer3DModel,
    latents: Tensor,
    sigma: Tensor,
    context: Tensor,
    *,
    dtype: torch.dtype,
) -> Tensor:
    """Return v = noise - x0 as the network sees it, float32, in the shape of `latents`.

    `latents` (B, C, 1, h, w) float32; `sigma` (B,) float32 in [0, 1], one per sample and never
    multiplied by 1000; `context` (B, rows, dim). Only the network's activations have `dtype`:
    sigma rounded to bfloat16 would be off by up to 0.5 %. No mask is given, because the zero rows
    that fill up the context are keys that the network was trained to see.
    """
    if sigma.dtype != torch.float32 or sigma.shape != latents.shape[:1]:
        raise ValueError(f"sigma must be float32 of shape ({latents.shape[0]},), not {sigma}")
    velocity: Tensor
    (velocity,) = transformer(
        hidden_states=latents.to(dtype),
        timestep=sigma,
        encoder_hidden_states=context.to(dtype),
        return_dict=False,
    )
    return velocity.float()
