"""Forwards of random rows: those at which all code is compiled, and others that must find it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.network.transformer.forward import Row, Transformer


class Example(NamedTuple):
    """So many images of a size (height, width) in latents, with so many texts and noise levels.

    `texts` counts those of each image, `tokens` those of each text.
    """

    images: int
    texts: int
    levels: int
    size: tuple[int, int]
    tokens: int


@dataclass(frozen=True, slots=True)
class RandomRows:
    """Random latents (images, C, 1, h, w), noise levels and contexts (rows, context rows, dim)."""

    example: Example
    latents: Tensor
    sigmas: list[float]
    contexts: Tensor

    def rows(self, network: Transformer) -> list[Row]:
        """The rows of a forward of this network."""
        example = self.example
        images = torch.split(self.latents, 1)
        texts = [network.read_text(context, example.tokens) for context in self.contexts]
        return [
            Row(images[n // example.texts], self.sigmas[n // example.texts], text)
            for n, text in enumerate(texts)
        ]


def traced(size: tuple[int, int], context_rows: int) -> list[Example]:
    """At these forwards all code is compiled: one row, one noise level, several noise levels."""
    tokens = context_rows // 2
    return [
        Example(images, texts, levels, size, tokens)
        for images, texts, levels in ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    ]


def checked(size: tuple[int, int], context_rows: int) -> list[Example]:
    """These forwards have other sizes and must find the code of the traced ones."""
    height, width = size
    other = (height + 2, max(2, width - 4))
    return [
        Example(1, 1, 1, other, 1),
        Example(1, 2, 1, size, context_rows),
        Example(3, 1, 3, size, context_rows // 2),
        Example(3, 2, 1, other, 1),
        Example(3, 2, 3, other, context_rows),
    ]


def random_rows(
    example: Example, config: Any, context_rows: int, device: torch.device
) -> RandomRows:
    """Draw the rows of an example; always the same ones."""
    generator = torch.Generator().manual_seed(1)
    images = example.images
    shape = (images, config.in_channels, 1, *example.size)
    latents = torch.randn(shape, generator=generator).to(device)
    sigmas = [0.9 - 0.2 * (image % example.levels) for image in range(images)]
    texts = images * example.texts
    contexts = torch.randn(texts, context_rows, config.text_embed_dim, generator=generator)
    contexts[:, example.tokens :] = 0
    return RandomRows(example, latents, sigmas, contexts.to(device))
