"""Lets one compilation of the blocks serve pictures of all sizes, batches, and texts of any length.

A batch of one row, and a batch whose rows have different noise levels, are code of their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.network.transformer.blocks import AfterText, BeforeText, Blocks, Modulation


def for_every_size(blocks: Blocks) -> Blocks:
    """The same functions, for the forwards at which they are compiled.

    They tell the compiler which sides of their tensors vary. Forwards that find their code need
    not tell it again.
    """
    enter, onward, last, at_once = blocks

    def marked_enter(
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        own: Modulation,
        text: Modulation,
        weights: BeforeText,
        *,
        at_once: bool,
    ) -> tuple[Tensor, Tensor]:
        _mark((0, 1), x)
        _mark((0,), *rotary)
        _mark_levels([own, text])
        return enter(x, rotary, own, text, weights, at_once=at_once)

    def marked_pass_on(
        x: Tensor,
        q: Tensor,
        keys: Tensor,
        bias: Tensor,
        modulations: Sequence[Modulation],
        weights: tuple[AfterText, BeforeText],
        rotary: tuple[Tensor, Tensor],
        *,
        at_once: bool,
    ) -> tuple[Tensor, Tensor]:
        _mark_question(x, q, keys, bias)
        _mark_levels(modulations)
        _mark((0,), *rotary)
        return onward(x, q, keys, bias, modulations, weights, rotary, at_once=at_once)

    def marked_leave(
        x: Tensor,
        q: Tensor,
        keys: Tensor,
        bias: Tensor,
        modulations: Sequence[Modulation],
        weights: tuple[AfterText, Tensor],
    ) -> Tensor:
        _mark_question(x, q, keys, bias)
        _mark_levels(modulations)
        return last(x, q, keys, bias, modulations, weights)

    return Blocks(marked_enter, marked_pass_on, marked_leave, at_once)


def _mark_question(x: Tensor, q: Tensor, keys: Tensor, bias: Tensor) -> None:
    _mark((0, 1), x, q)
    _mark((1, 2), keys)
    _mark((3,), bias)


def _mark_levels(modulations: Sequence[Modulation]) -> None:
    for modulation in modulations:
        _mark((0,), *(part for part in modulation if part.ndim == 3))


def _mark(sides: Sequence[int], *tensors: Tensor) -> None:
    for tensor in tensors:
        for side in sides:
            if tensor.shape[side] > 1:  # the compiler makes code of its own for 1
                torch._dynamo.maybe_mark_dynamic(tensor, side)
