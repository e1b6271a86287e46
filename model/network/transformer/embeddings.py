"""What the transformer knows beside patches and text: positions, and the noise level."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.transformer.attention import EPSILON

_THETA = 10_000.0


def rotary_tables(
    rows: int, columns: int, head_dim: int, scale: Sequence[float], like: Tensor
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, each (rows * columns, 1, 1, head_dim).

    Both stand twice, for the first and the second half of a head; the first sines are negative.

    Frequencies are theta^(-2i / dim) of each axis, with theta stretched by the axis's `scale`
    (time, height, width): NTK-aware scaling. An image has the time 0. The angles are float32; the
    tables have the dtype and device of `like`.
    """
    side_dim = head_dim // 6 * 2
    dims = (head_dim - 2 * side_dim, side_dim, side_dim)
    places = (
        torch.zeros(rows, columns),
        torch.arange(rows).float()[:, None].expand(rows, columns),
        torch.arange(columns).float()[None].expand(rows, columns),
    )
    angles = torch.cat(
        [
            place[..., None] * _frequencies(dim, factor)
            for place, dim, factor in zip(places, dims, scale, strict=True)
        ],
        dim=-1,
    ).view(rows * columns, 1, 1, head_dim // 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1).to(like), torch.cat([-sin, sin], -1).to(like)


def _frequencies(dim: int, scale: float) -> Tensor:
    theta = _THETA * scale ** (dim / (dim - 2))
    powers = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    frequencies: Tensor = 1.0 / (theta**powers)
    return frequencies


def modulation_table(transformer: Any, sigma: float, like: Tensor) -> Tensor:
    """Shift, 1 + scale and gate of every branch of every block at one noise level.

    (3 * blocks + 1, 3, width) in the dtype and on the device of `like`: self-attention, text and
    feed-forward of each block, then the output layer, which has no gate. Branches share one
    vector of the noise level; each adds its own of low rank (adaLN-LoRA). Computed in float32 and
    rounded once, because an error here shifts all patches alike.
    """
    time = transformer.time_embed
    embedding = _sinusoid(sigma, time.norm.weight.shape[0], like.device)
    hidden = functional.silu(_linear(embedding, time.t_embedder.linear_1))
    shared = _linear(hidden, time.t_embedder.linear_2)
    norm = functional.rms_norm(embedding, embedding.shape[-1:], time.norm.weight.float(), EPSILON)
    condition = functional.silu(norm)
    branches = [
        norm
        for block in transformer.transformer_blocks
        for norm in (block.norm1, block.norm2, block.norm3)
    ]
    low_rank = [
        _linear(_linear(condition, branch.linear_1), branch.linear_2)
        for branch in (*branches, transformer.norm_out)
    ]
    missing_gate = shared.shape[1] - low_rank[-1].shape[1]
    low_rank[-1] = functional.pad(low_rank[-1], (0, missing_gate))
    table = (torch.cat(low_rank) + shared).view(len(low_rank), 3, -1)
    table[:, 1] += 1
    return table.to(like.dtype)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return functional.linear(x, layer.weight.float())


def _sinusoid(sigma: float, width: int, device: torch.device) -> Tensor:
    """(1, width): cosines, then sines, of sigma at geometric frequencies."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=device) / half
    angles = torch.exp(-math.log(_THETA) * exponents) * sigma
    return torch.cat([angles.cos(), angles.sin()])[None]
