"""The transformer of Anima (Cosmos-Predict2's MiniTrainDIT), written for inference.

It computes what diffusers' `CosmosTransformer3DModel` computes, on the weights of such a module,
and does everything once that does not change from step to step: the modulation of all blocks per
noise level, the keys and values of each text, the positions of each size.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.files.weight_shapes import PATCH
from model.network.byte_cache import ByteCache
from model.network.lora_switch import SetWeights
from model.network.transformer.attention import rms_norm, text_rows
from model.network.transformer.blocks import (
    Blocks,
    Modulation,
    weights_after_text,
    weights_before_text,
)
from model.network.transformer.embeddings import modulation_table, rotary_tables
from model.network.transformer.products import linear

_MODULATION_BYTES = 64 << 20
_ROTARY_BYTES = 32 << 20
TEXT_BYTES = 256 << 20
"""Default limit for the kept keys and values of texts: 14 prompts of 77 tokens in bfloat16."""

CACHE_BYTES = _MODULATION_BYTES + _ROTARY_BYTES + TEXT_BYTES
"""What the caches of a transformer keep at most."""


_ACTIVATIONS = 19
"""Numbers for each token and unit of the width that a forward holds at its peak, as counted."""


def forward_bytes(module: Any, tokens: int, dtype: torch.dtype) -> int:
    """Bytes beside weights and caches that an eager forward of so many tokens takes at most."""
    width = module.config.num_attention_heads * module.config.attention_head_dim
    return int(_ACTIVATIONS * tokens * width * dtype.itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class TextKeys:
    """Keys and values of a text for all blocks: (blocks, 2, tokens, heads, head_dim).

    `context_rows` counts the tokens and the zero rows that follow them.
    """

    values: Tensor
    context_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of a forward: `latents` (1, C, 1, h, w) float32 at the noise level `sigma`, a text.

    Successive rows with the same `latents` object and level share all work before the text.
    """

    latents: Tensor
    sigma: float
    text: TextKeys


class Transformer:
    """Predicts velocities. Not thread-safe.

    `variant` identifies the weights that the module has now, because LoRAs change them. `dtype` is
    that of weights and activations; noise levels and angles are float32.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        dtype: torch.dtype,
        variant: Callable[[], Hashable] = lambda: (),
        text_bytes: int = TEXT_BYTES,
    ) -> None:
        self._module: Any = module
        self._dtype = dtype
        self._variant = variant
        self._blocks = Blocks()
        self._is_float8 = False
        config: Any = module.config
        self._heads: int = config.num_attention_heads
        self._head_dim: int = config.attention_head_dim
        # Beside each text stands its context, so that no other can get the same id.
        self._texts: ByteCache[tuple[Tensor, TextKeys]] = ByteCache(
            text_bytes, lambda entry: entry[1].values.nbytes
        )
        self._modulation: ByteCache[Tensor] = ByteCache(_MODULATION_BYTES, lambda t: t.nbytes)
        self._rotary: ByteCache[tuple[Tensor, Tensor]] = ByteCache(
            _ROTARY_BYTES, lambda tables: sum(table.nbytes for table in tables)
        )

        self._reading = Lock()
        self._biases: dict[tuple[int, int], tuple[int, Tensor | None]] = {}

    @property
    def module(self) -> Any:
        """The library's module, or one with its names."""
        return self._module

    @property
    def config(self) -> Any:
        """The sizes of the library's module."""
        return self._module.config

    def use(self, blocks: Blocks, *, float8: bool = False) -> None:
        """Compute with these functions from the next forward on; the large products in float8.

        For that, `keep_float8` must have given the module its weights.
        """
        self._blocks = blocks
        self._is_float8 = float8

    def forget(self) -> None:
        """Release all cached tensors."""
        self._biases.clear()
        with self._reading:
            self._texts.clear()
        self._modulation.clear()
        self._rotary.clear()

    @torch.no_grad()
    def read_text(
        self, context: Tensor, tokens: int, weights: SetWeights | None = None
    ) -> TextKeys:
        """Compute a text's keys and values, or return the cached ones. One thread at a time.

        `context` is (rows, dim); its rows from `tokens` on are zero. Cached by identity. `weights`
        are those to read it with, whichever are active; without them, those that the module has.
        """
        variant, weight_of = (
            (self._variant(), _weight) if weights is None else (weights.loras, weights.of)
        )
        with self._reading:
            _, text = self._texts.get(
                (id(context), variant),
                lambda: (context, self._text_keys(context, tokens, weight_of)),
            )
        return text

    def _text_keys(
        self, context: Tensor, tokens: int, weight_of: Callable[[Any], Tensor]
    ) -> TextKeys:
        text = context[:tokens].to(self._module.patch_embed.proj.weight)  # its device and dtype
        parts = []
        for block in self._module.transformer_blocks:
            k, v = (
                torch.unflatten(functional.linear(text, weight_of(layer)), -1, (self._heads, -1))
                for layer in (block.attn2.to_k, block.attn2.to_v)
            )
            parts += [rms_norm(k, weight_of(block.attn2.norm_k)), v]
        return TextKeys(torch.unflatten(torch.stack(parts), 0, (-1, 2)), len(context))

    @torch.no_grad()
    def velocity(self, rows: Sequence[Row]) -> Tensor:
        """Predict v = noise - x0 of every row: (rows, C, 1, h, w) float32.

        All latents have the same size. The network takes sigma in [0, 1] without a factor of 1000.
        There is no attention mask.
        """
        images, image_of = _images(rows)
        height, width = images[0].latents.shape[-2:]
        x = self._patches(torch.cat([image.latents for image in images]))
        rotary = self._positions(height // PATCH, width // PATCH, x)
        tables = [self._levels(image.sigma, x) for image in images]
        modulation = _modulation(tables)
        keys, bias = self._keys([row.text for row in rows], x)
        blocks, at_once = self._module.transformer_blocks, self._blocks.at_once
        before = (weights_before_text(block, float8=self._is_float8) for block in blocks)
        after = [weights_after_text(block, float8=self._is_float8) for block in blocks]
        x, q = self._blocks.enter(x, rotary, *modulation[:2], next(before), at_once=at_once)
        if len(images) < len(rows):
            # So far the rows of an image are the same.
            x, q = (torch.cat([part[i : i + 1] for i in image_of]) for part in (x, q))
            modulation = _modulation([tables[i] for i in image_of])
        for index, weights in enumerate(before):
            x, q = self._blocks.pass_on(
                x, q, keys[index], bias, modulation[3 * index + 1 : 3 * index + 5],
                (after[index], weights), rotary, at_once=at_once,
            )  # fmt: skip
        last = after[-1], self._module.proj_out.weight
        out = self._blocks.leave(x, q, keys[-1], bias, modulation[-3:], last)
        return _unpatched(out, height, width)

    def _keys(self, texts: Sequence[TextKeys], like: Tensor) -> tuple[Tensor, Tensor | None]:
        """Keys and values (blocks, 2, B, rows, heads, head_dim), and the bias of the rows."""
        tokens = max(text.values.shape[2] for text in texts)
        place = tokens, texts[0].context_rows
        if place not in self._biases:
            self._biases[place] = text_rows(*place, like)
        rows, bias = self._biases[place]
        if bias is None and self._blocks.at_once:
            bias = like.new_zeros(1, 1, 1, rows)  # so that compiled code need not tell them apart
        return torch.stack([_lengthened(text.values, rows) for text in texts], dim=2), bias

    def _patches(self, latents: Tensor) -> Tensor:
        """Embed patches: (B, C, 1, h, w) to (B, patches, width)."""
        batch, channels, _, height, width = latents.shape
        patches = latents.to(self._dtype).view(
            batch, channels, height // PATCH, PATCH, width // PATCH, PATCH
        )
        flat = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)
        return linear(flat, self._module.patch_embed.proj.weight)

    def _positions(self, rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
        scale = self._module.config.rope_scale
        return self._rotary.get(
            (rows, columns), lambda: rotary_tables(rows, columns, self._head_dim, scale, like)
        )

    def _levels(self, sigma: float, like: Tensor) -> Tensor:
        """The modulation at one noise level, always computed alone: so it has the same bits."""
        return self._modulation.get(
            (sigma, self._variant()), lambda: modulation_table(self._module, sigma, like)
        )


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight


def _images(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The first row of every image, and the image of every row."""
    images: list[Row] = []
    image_of = []
    for row in rows:
        if not images or row.latents is not images[-1].latents or row.sigma != images[-1].sigma:
            images.append(row)
        image_of.append(len(images) - 1)
    return images, image_of


def _modulation(tables: Sequence[Tensor]) -> list[Modulation]:
    """Shift, scale and gate of every branch: (width,) if all are equal, else (B, 1, width)."""
    table = tables[0]
    if any(other is not table for other in tables):
        table = torch.stack(list(tables), dim=2).unsqueeze(3)
    return [(branch[0], branch[1], branch[2]) for branch in table.unbind(0)]


def _lengthened(values: Tensor, tokens: int) -> Tensor:
    missing = tokens - values.shape[2]
    return functional.pad(values, (0, 0, 0, 0, 0, missing)) if missing else values


def _unpatched(patches: Tensor, height: int, width: int) -> Tensor:
    """(B, patches, values) to (B, C, 1, h, w) float32. A patch is (row, column, channel)."""
    rows, columns = height // PATCH, width // PATCH
    split = patches.view(len(patches), rows, columns, PATCH, PATCH, -1)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, 1, height, width).float()
