"""Qwen3 and Anima's text adapter, written for inference: one prompt, without padding.

They compute in float32 what transformers' `Qwen3Model` and diffusers' `AnimaTextConditioner`
compute, whatever the precision of the weights.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.network.weight_tree import Float32Tree

_ADAPTER_EPSILON = 1e-6
_ADAPTER_THETA = 10_000.0

_Rotary = tuple[Tensor, Tensor]


@torch.no_grad()
def qwen_states(model: Float32Tree, ids: Tensor, *, theta: float, epsilon: float) -> Tensor:
    """The last hidden states of Qwen3: token ids (B, T) to (B, T, width) float32.

    `theta` is the base of its rotary positions, `epsilon` that of its norms.
    """
    x = _embedding(ids, model.embed_tokens)
    rotary = _rotary(x, model.layers[0].self_attn, theta)
    for layer in model.layers:
        h = _norm(x, layer.input_layernorm, epsilon)
        x = x + _attention(layer.self_attn, h, h, rotary, rotary, epsilon, is_causal=True)
        h = _norm(x, layer.post_attention_layernorm, epsilon)
        gate, up = _linear(h, layer.mlp.gate_proj), _linear(h, layer.mlp.up_proj)
        x = x + _linear(functional.silu(gate) * up, layer.mlp.down_proj)
    return _norm(x, model.norm, epsilon)


@torch.no_grad()
def adapted(model: Float32Tree, states: Tensor, ids: Tensor) -> Tensor:
    """The adapter's rows for T5's token ids (B, T) and Qwen3's states (B, S, width of Qwen3).

    (B, T, width of the context) float32. Every row attends to all others and to all states.
    """
    x = _embedding(ids, model.embed)
    if hasattr(model, "in_proj"):
        x = _linear(x, model.in_proj)
    attention, epsilon = model.blocks[0].self_attn, _ADAPTER_EPSILON
    own, theirs = (_rotary(rows, attention, _ADAPTER_THETA) for rows in (x, states))
    for block in model.blocks:
        h = _norm(x, block.norm_self_attn, epsilon)
        x = x + _attention(block.self_attn, h, h, own, own, epsilon)
        h = _norm(x, block.norm_cross_attn, epsilon)
        x = x + _attention(block.cross_attn, h, states, own, theirs, epsilon)
        h = _linear(_norm(x, block.norm_mlp, epsilon), block.mlp[0])
        x = x + _linear(functional.gelu(h), block.mlp[2])
    return _norm(_linear(x, model.out_proj), model.norm, epsilon)


def _attention(
    weights: Any,
    x: Tensor,
    source: Tensor,
    rotary: _Rotary,
    source_rotary: _Rotary,
    epsilon: float,
    *,
    is_causal: bool = False,
) -> Tensor:
    """Attention of `x` to `source`, with norms and positions of queries and keys."""
    head_dim = len(weights.q_norm.weight)
    pairs = (x, weights.q_proj), (source, weights.k_proj), (source, weights.v_proj)
    q, k, v = (
        torch.unflatten(_linear(rows, layer), -1, (-1, head_dim)).transpose(1, 2)
        for rows, layer in pairs
    )
    q = _turned(_norm(q, weights.q_norm, epsilon), rotary)
    k = _turned(_norm(k, weights.k_norm, epsilon), source_rotary)
    is_grouped = q.shape[1] != k.shape[1]
    h = functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=is_grouped)
    return _linear(h.transpose(1, 2).flatten(2), weights.o_proj)


def _rotary(x: Tensor, attention: Any, theta: float) -> _Rotary:
    """Cosines and sines (T, head_dim) of the positions of `x` (B, T, width)."""
    head_dim = len(attention.q_norm.weight)
    powers = torch.arange(0, head_dim, 2, device=x.device).float() / head_dim
    positions = torch.arange(x.shape[1], device=x.device).float()
    angles = positions[:, None] * (1.0 / theta**powers)
    both = torch.cat([angles, angles], -1)
    return both.cos(), both.sin()


def _turned(x: Tensor, rotary: _Rotary) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * rotary[0] + torch.cat([-second, first], -1) * rotary[1]


def _norm(x: Tensor, layer: Any, epsilon: float) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], layer.weight, epsilon)


def _linear(x: Tensor, layer: Any) -> Tensor:
    return functional.linear(x, layer.weight.float(), getattr(layer, "bias", None))


def _embedding(ids: Tensor, layer: Any) -> Tensor:
    return functional.embedding(ids, layer.weight).float()
