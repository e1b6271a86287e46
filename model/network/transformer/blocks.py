"""The blocks of the transformer as functions of tensors alone, so that they can be compiled.

They are cut where a block asks the text, not where it ends: what lies between the last product of a
block and the first of the next is then one kernel.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from model.network.transformer.attention import EPSILON, rms_norm, self_attention, text_attention
from model.network.transformer.float8 import float8_of
from model.network.transformer.products import Weight, linear

Modulation = tuple[Tensor, Tensor, Tensor]
"""Shift, 1 + scale and gate of a branch: each (width,), or (B, 1, width)."""


class BeforeText(NamedTuple):
    """Weights of a block's self-attention, and of the query that it asks the text."""

    qkv: Weight
    norm_q: Tensor
    norm_k: Tensor
    out: Weight
    query: Weight
    norm_query: Tensor


class AfterText(NamedTuple):
    """Weights that map the text's answer, and those of the feed-forward layers."""

    out: Weight
    up: Weight
    down: Weight


def weights_before_text(block: Any, *, float8: bool = False) -> BeforeText:
    """The weights that a block of the library's class has now."""
    own, text = block.attn1, block.attn2
    weight_of = float8_of if float8 else _weight
    return BeforeText(
        float8_of(own) if float8 else own.qkv, own.norm_q.weight, own.norm_k.weight,
        weight_of(own.to_out[0]), weight_of(text.to_q), text.norm_q.weight,
    )  # fmt: skip


def weights_after_text(block: Any, *, float8: bool = False) -> AfterText:
    """The weights that a block of the library's class has now."""
    weight_of = float8_of if float8 else _weight
    return AfterText(
        weight_of(block.attn2.to_out[0]),
        weight_of(block.ff.net[0].proj),
        weight_of(block.ff.net[2]),
    )


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight


def before_text(
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    own: Modulation,
    text: Modulation,
    weights: BeforeText,
    *,
    at_once: bool = False,
) -> tuple[Tensor, Tensor]:
    """Self-attention; returns `x` (B, patches, width) and the query (B, patches, heads, head_dim).

    `own` and `text` modulate the self-attention and the query. `at_once` is for compilers.
    """
    shift, scale, gate = own
    norms = weights.norm_q, weights.norm_k
    h = self_attention(modulate(x, shift, scale), weights.qkv, norms, rotary, at_once=at_once)
    x = torch.addcmul(x, gate, linear(h, weights.out))
    shift, scale, _ = text
    q = linear(modulate(x, shift, scale), weights.query)
    head_dim = weights.norm_query.shape[0]
    return x, rms_norm(torch.unflatten(q, -1, (-1, head_dim)), weights.norm_query)


def after_text(
    x: Tensor,
    q: Tensor,
    keys: Tensor,
    bias: Tensor | None,
    text: Modulation,
    feed: Modulation,
    weights: AfterText,
) -> Tensor:
    """Attention to the text, and the feed-forward layers; returns `x`.

    `keys` are the keys and values, (2, B, rows, heads, head_dim), `bias` that of their scores;
    `text` and `feed` modulate.
    """
    h = text_attention(q, keys[0], keys[1], bias)
    x = torch.addcmul(x, text[2], linear(h, weights.out))
    shift, scale, gate = feed
    h = linear(modulate(x, shift, scale), weights.up)
    torch.ops.aten.gelu_(h)
    return torch.addcmul(x, gate, linear(h, weights.down))


def pass_on(
    x: Tensor,
    q: Tensor,
    keys: Tensor,
    bias: Tensor | None,
    modulations: Sequence[Modulation],
    weights: tuple[AfterText, BeforeText],
    rotary: tuple[Tensor, Tensor],
    *,
    at_once: bool = False,
) -> tuple[Tensor, Tensor]:
    """From a block's question to the text to that of the next block: `x` and the query."""
    text, feed, own, next_text = modulations
    x = after_text(x, q, keys, bias, text, feed, weights[0])
    return before_text(x, rotary, own, next_text, weights[1], at_once=at_once)


def leave(
    x: Tensor,
    q: Tensor,
    keys: Tensor,
    bias: Tensor | None,
    modulations: Sequence[Modulation],
    weights: tuple[AfterText, Tensor],
) -> Tensor:
    """From the last block's question to the text to the output: (B, patches, values)."""
    text, feed, (shift, scale, _) = modulations
    x = after_text(x, q, keys, bias, text, feed, weights[0])
    return linear(modulate(x, shift, scale), weights[1])


class Blocks(NamedTuple):
    """The three functions that a forward is made of, as they are or compiled.

    `at_once` is passed on. A function must not ask PyTorch whether it is being compiled: the answer
    is one for the whole process, and would change the bits of an eager forward in another thread.
    """

    enter: Callable[..., tuple[Tensor, Tensor]] = before_text
    pass_on: Callable[..., tuple[Tensor, Tensor]] = pass_on
    leave: Callable[..., Tensor] = leave
    at_once: bool = False

    @classmethod
    def compiled(cls, **options: Any) -> Self:
        """Compile them at their first call; `options` are those of `torch.compile`."""
        make: Any = partial(torch.compile, **options)
        return cls(make(before_text), make(pass_on), make(leave), at_once=True)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm(x) * scale + shift."""
    width = x.shape[-1:]
    if shift.ndim == 1:
        return functional.layer_norm(x, width, scale, shift, EPSILON)
    return torch.addcmul(shift, functional.layer_norm(x, width, eps=EPSILON), scale)
