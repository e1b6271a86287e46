"""Attention of the transformer: between patches with rotary positions, and to the text."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.transformer.products import Weight, linear_each

EPSILON = 1e-6
"""Of every norm in the network."""

_SINKS = 3
_ROWS = 32


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


def self_attention(
    x: Tensor,
    qkv: Weight,
    norms: tuple[Tensor, Tensor],
    rotary: tuple[Tensor, Tensor],
    *,
    at_once: bool,
) -> Tensor:
    """Attend to all patches of the same image. `x` and the result are (B, patches, width).

    `norms` are the weights of the norms of queries and keys, each (head_dim,). `at_once` writes
    norm and rotation as one expression, which is better for a compiler and rounds differently.
    """
    batch, patches, width = x.shape
    head_dim = norms[0].shape[0]
    split = (batch, patches, width // head_dim, head_dim)
    q, k, v = (part.view(split) for part in linear_each(x, qkv, 3))
    turned = _turned_at_once if at_once else _turned
    q, k = turned(q, norms[0], rotary), turned(k, norms[1], rotary)
    q, k, v = _heads_first(q, k, v)
    return _patches_first(functional.scaled_dot_product_attention(q, k, v))


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Divide by the root of the mean square of the last axis, times the norm's weight."""
    return functional.rms_norm(x, x.shape[-1:], weight, EPSILON)


def _turned(x: Tensor, weight: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    return rotate(rms_norm(x, weight), rotary)


def _turned_at_once(x: Tensor, weight: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """The same in float32 until the end: a compiler makes one kernel of it for queries and keys.

    The tables stand in the sum of squares, where cos^2 + sin^2 is 1 but for their rounding, because
    a sum and a rotation with the same loops become one kernel.
    """
    cos, sin = (table.squeeze(1).float() for table in rotary)
    half = x.shape[-1] // 2
    numbers, weight = x.float(), weight.float()
    squares = numbers.square() * (cos.square() + sin.square())
    scale = torch.rsqrt(squares.mean(-1, keepdim=True) + EPSILON)
    turned = numbers * (weight * cos) + numbers.roll(half, -1) * (weight.roll(half) * sin)
    return (scale * turned).to(x.dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + half) of every head by the angles of its patch.

    `x` is (B, patches, heads, head_dim). The tables are (patches, 1, 1, head_dim): of the cosines
    twice; of the sines, first negated.
    """
    half = x.shape[-1] // 2
    cos, sin = rotary[0][..., :half], rotary[1][..., half:]
    pairs = torch.unflatten(x, -1, (2, -1))
    turned = pairs * cos
    turned[..., 0, :].addcmul_(pairs[..., 1, :], sin[..., 0, :], value=-1)
    turned[..., 1, :].addcmul_(pairs[..., 0, :], sin[..., 0, :])
    return turned.flatten(-2)


def text_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attend to a text: `q` is (B, patches, heads, head_dim), `k` and `v` (B, rows, ...).

    `bias` (1, 1, 1, rows) is added to the scores of each row; None adds nothing. Returns
    (B, patches, width).
    """
    q, k, v = _heads_first(q, k, v)
    return _patches_first(functional.scaled_dot_product_attention(q, k, v, bias))


def text_rows(tokens: int, context_rows: int, like: Tensor) -> tuple[int, Tensor | None]:
    """How many rows of a context of `tokens` tokens to attend to, and the bias of their scores.

    The network has learned to attend to the zero rows that fill the context: each adds exp(0) = 1
    to the softmax's denominator and nothing to its numerator. A zero row with a bias b counts as
    exp(b) of them, so the last three stand for all that are left out: what rounding their dtype
    takes from one is given to the next. Tokens are rounded up, so that few sizes occur.
    """
    rows = -(-(tokens + _SINKS) // _ROWS) * _ROWS
    if rows >= context_rows:
        return context_rows, None
    bias = torch.zeros(rows, dtype=torch.float64)
    missing = float(context_rows - rows + _SINKS)
    for place in range(rows - _SINKS, rows):
        # Never more than is missing: the next one adds what the rounding cut off.
        bias[place] = _rounded_down(math.log(missing), like.dtype)
        missing -= math.exp(bias[place].item())
    return rows, bias.to(like).view(1, 1, 1, rows)


def _rounded_down(number: float, dtype: torch.dtype) -> float:
    rounded = torch.tensor(number, dtype=torch.float64).to(dtype)
    if rounded.item() >= number:
        rounded = torch.nextafter(rounded, rounded - 1)
    return float(rounded)


def _heads_first(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in tensors]


def _patches_first(attended: Tensor) -> Tensor:
    """(B, heads, patches, head_dim) to (B, patches, width)."""
    return attended.transpose(1, 2).flatten(2)
