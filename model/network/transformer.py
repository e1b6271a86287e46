"""Evaluates the transformer once: latents, noise level and text context in, velocity out."""

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
    """Predict the velocity v = noise - x0, float32, in the shape of `latents`.

    `latents` is (B, C, 1, h, w) float32. `sigma` is (B,) float32 in [0, 1], one noise level per
    sample; the network takes it without a factor of 1000. `context` is (B, rows, dim). Only the
    network's activations have `dtype`: rounding sigma to bfloat16 would change it by up to 0.5 %.
    There is no attention mask, because the network was trained to attend to the zero rows that
    pad the context.

    Raises:
        ValueError: `sigma` has another dtype or shape.
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
