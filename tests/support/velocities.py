"""Between forwards as the engine asks for them, row by row, and forwards on stacked tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model.network.text.encoder import EncodedPrompt
from model.network.transformer.forward import Row, TextKeys, Transformer

StackedVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_rows(velocity: StackedVelocity) -> Callable[[Sequence[Row]], Tensor]:
    """The engine's form of a model that takes latents, sigmas (B,) and contexts (B, rows, dim)."""

    def of_rows(rows: Sequence[Row]) -> Tensor:
        return velocity(
            torch.cat([row.latents for row in rows]),
            torch.tensor([row.sigma for row in rows]),
            torch.stack([row.text.values for row in rows]),
        )

    return of_rows


def read_context(prompt: EncodedPrompt, _: Any = None) -> TextKeys:
    """Pass a prompt's context on to such a model."""
    return TextKeys(prompt.context, len(prompt.context))


def stacked_rows(
    network: Transformer, latents: Tensor, sigma: Tensor, context: Tensor
) -> list[Row]:
    """One row for each sample. The text ends with the last row of a context that is not zero."""
    rows = []
    for one, level, text in zip(torch.split(latents, 1), sigma.tolist(), context, strict=True):
        tokens = int(text.abs().sum(1).nonzero().max()) + 1
        rows.append(Row(one, level, network.read_text(text, tokens)))
    return rows
