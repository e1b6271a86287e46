"""Attention of the transformer: between patches with rotary positions, and to the text."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6
"""Of every norm in the network."""


def stack_projections(transformer: nn.Module) -> None:
    """Give every self-attention one tensor `qkv` (3, width, width) for its three projections.

    The weights of `to_q`, `to_k` and `to_v` become views of it, with the same bits.
    """
    for attention in self_attentions(transformer):
        layers = (attention.to_q, attention.to_k, attention.to_v)
        attention.qkv = torch.stack([layer.weight.detach() for layer in layers])
        for layer, weight in zip(layers, attention.qkv, strict=True):
            layer.weight = nn.Parameter(weight, requires_grad=False)


def self_attentions(transformer: nn.Module) -> list[Any]:
    """The self-attention of every block."""
    return [block.attn1 for block in getattr(transformer, "transformer_blocks", ())]


def self_attention(attention: Any, x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Attend to all patches of the same image. `x` and the result are (B, patches, width)."""
    batch, patches, width = x.shape
    flat = x.reshape(1, batch * patches, width).expand(3, -1, -1)
    projected = torch.bmm(flat, attention.qkv.mT)
    q, k, v = projected.view(3, batch, patches, heads, width // heads).unbind(0)
    q = rotate(rms_norm(q, attention.norm_q), rotary)
    k = rotate(rms_norm(k, attention.norm_k), rotary)
    q, k, v = _heads_first(q, k, v)
    return _patches_first(functional.scaled_dot_product_attention(q, k, v))


def rms_norm(x: Tensor, norm: Any) -> Tensor:
    """Divide by the root of the mean square of the last axis, times the norm's weight."""
    return functional.rms_norm(x, x.shape[-1:], norm.weight, EPSILON)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + half) of every head by the angles of its patch.

    `x` is (B, patches, heads, head_dim). The cosines and sines are (patches, 1, 1, half).
    """
    cos, sin = rotary
    pairs = torch.unflatten(x, -1, (2, -1))
    turned = pairs * cos
    turned[..., 0, :].addcmul_(pairs[..., 1, :], sin[..., 0, :], value=-1)
    turned[..., 1, :].addcmul_(pairs[..., 0, :], sin[..., 0, :])
    return turned.flatten(-2)


def text_attention(q: Tensor, k: Tensor, v: Tensor, *, zero_rows: int) -> Tensor:
    """Attend to a text and to `zero_rows` rows after it whose keys and values are zero.

    `q` is (B, patches, heads, head_dim), `k` and `v` are (B, tokens, heads, head_dim); returns
    (B, patches, width). The network has learned to attend to the zero rows that fill the context:
    each adds exp(0) = 1 to the softmax's denominator and nothing to its numerator. So attention to
    the tokens alone, times s / (s + zero_rows) with s the sum of their exponentials, is the same.
    """
    q, k, v = _heads_first(q, k, v)
    if zero_rows and (attend := _attention_with_sum(q, k)):
        attended, log_sum = attend(q, k, v)[:2]
        share = torch.sigmoid(log_sum - math.log(zero_rows))
        attended = attended.mul_(share.unsqueeze(-1))
    else:
        k, v = (functional.pad(part, (0, 0, 0, zero_rows)) for part in (k, v))
        attended = functional.scaled_dot_product_attention(q, k, v)
    return _patches_first(attended)


def _attention_with_sum(q: Tensor, k: Tensor) -> Callable[..., Any] | None:
    """The device's attention that also returns the logarithm of the sum, if it has one."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if q.device.type == "cuda":
        params = torch.backends.cuda.SDPAParams(q, k, k, None, 0.0, False, False)
        if not torch.backends.cuda.can_use_flash_attention(params):
            return None
    elif q.device.type != "meta":
        return None
    return torch.ops.aten._scaled_dot_product_flash_attention


def _heads_first(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in tensors]


def _patches_first(attended: Tensor) -> Tensor:
    """(B, heads, patches, head_dim) to (B, patches, width)."""
    return attended.transpose(1, 2).flatten(2)
