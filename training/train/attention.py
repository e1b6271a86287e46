"""Attention as matrix products, for fast training on a CPU."""

from typing import Any

import torch
from torch import Tensor


class PlainAttention:
    """The transformer's attention as matrix products.

    The result equals that of the library's processor, whose fused kernel spends more than half
    of a training step in its backward pass on a CPU.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError("the transformer's attention takes no mask")
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(rows).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for layer, rows in (
                (attn.to_q, hidden_states),
                (attn.to_k, source),
                (attn.to_v, source),
            )
        )
        q, k = attn.norm_q(q), attn.norm_k(k)
        if image_rotary_emb is not None:
            q, k = _rotate(q, image_rotary_emb), _rotate(k, image_rotary_emb)
        return attn.to_out[0](_attend(q, k, v, None))  # type: ignore[no-any-return]


class PlainTextAttention:
    """The conditioner's attention as matrix products; see `PlainAttention`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        encoder_position_embeddings: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = attn.num_attention_heads
        layers = (attn.q_proj, hidden_states), (attn.k_proj, source), (attn.v_proj, source)
        q, k, v = (layer(rows).unflatten(2, (heads, -1)).transpose(1, 2) for layer, rows in layers)
        q, k = attn.q_norm(q), attn.k_norm(k)
        if position_embeddings is not None and encoder_position_embeddings is not None:
            q, k = _rotate(q, position_embeddings), _rotate(k, encoder_position_embeddings)
        return attn.o_proj(_attend(q, k, v, attention_mask))  # type: ignore[no-any-return]


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.float().chunk(2, -1)
    return x.float() * cos + torch.cat([-second, first], -1) * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (B, heads, L, dim) as (B, L, heads * dim); `mask` is True for valid keys."""
    logits = (q.to(v.dtype) * q.shape[-1] ** -0.5) @ k.to(v.dtype).transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(logits, -1, dtype=torch.float32).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2, 3)
