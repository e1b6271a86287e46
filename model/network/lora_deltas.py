"""Computes the change of a weight by each LoRA method, in the precision of its arguments.

`DELTAS` has one function per method. It takes the weight (out, in) and the tensors of one layer by
role, and returns delta, shaped like the weight, such that W' = W + strength * delta.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from model.files.lora.shapes import skew_size

Tensors = Mapping[str, Tensor]


def lora_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """LoRA, Hu et al. 2021, arXiv 2106.09685: alpha / rank * (up @ down).

    `up` is (out, rank), `down` is (rank, in).
    """
    up, down = tensors["up"], tensors["down"]
    return (_scale(tensors, rank=len(down)) * up) @ down


def embedding_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """Peft's LoRA of an embedding: alpha / rank * (B @ A) transposed.

    `embedding_a` is (rank, rows), `embedding_b` is (dim, rank).
    """
    a, b = tensors["embedding_a"], tensors["embedding_b"]
    return a.T @ (_scale(tensors, rank=len(a)) * b).T


def loha_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """LoHa, Hyeon-Woo et al. 2022, arXiv 2108.06098: the Hadamard product of two low-rank products.

    alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), with w_a (out, rank) and w_b (rank, in).
    """
    first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
    second = tensors["hada_w2_a"] @ tensors["hada_w2_b"]
    return first.mul_(second).mul_(_scale(tensors, rank=len(tensors["hada_w1_b"])))


def lokr_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """LoKr, Yeh et al. 2024, arXiv 2309.14859: alpha / rank * kron(w1, w2).

    Each factor is whole or a product w_a @ w_b. If both are whole, the tensors have no rank: it is
    the stated `rank`, and without one alpha is unused.
    """
    ranks = [len(tensors[f"lokr_w{i}_b"]) for i in (2, 1) if f"lokr_w{i}_b" in tensors]
    ranks += [int(tensors["rank"])] if "rank" in tensors else []
    first, second = (_lokr_factor(tensors, f"lokr_w{i}") for i in (1, 2))
    scale = _scale(tensors, rank=ranks[0]) if ranks else 1.0
    return torch.kron(scale * first, second)


def _lokr_factor(tensors: Tensors, name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"]


def full_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """A full difference of a weight or a bias, as extractors and trainers write it."""
    (difference,) = tensors.values()
    return difference.reshape(weight.shape).clone()


def oft_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """OFT as LyCORIS writes it; Qiu et al. 2023, arXiv 2306.07280: W' = rescale * R^T W.

    R is block-diagonal with one rotation for each block of rows. `oft_blocks` is (blocks, n, n).
    """
    blocks = tensors["oft_blocks"]
    count, size = blocks.shape[0], blocks.shape[-1]
    turned = _rotations(weight, tensors).mT @ weight.reshape(count, size, -1)
    return _rescaled(turned.reshape(weight.shape), tensors) - weight


def boft_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """BOFT as LyCORIS writes it; Liu et al. 2023, arXiv 2311.06243: W' = rescale * R_m … R_1 W.

    Factor i rotates blocks of rows that are n 2^(i-1) / 2 rows apart in pairs (a butterfly).
    `oft_blocks` is (m, blocks, n, n).
    """
    rotations, value = _rotations(weight, tensors), weight
    rows, columns = weight.shape
    size = rotations.shape[-1]
    for level, blocks in enumerate(rotations):
        stride = 2**level * (size // 2)
        apart = value.reshape(-1, 2, stride, columns).transpose(1, 2)
        turned = blocks @ apart.reshape(-1, size, columns)
        value = turned.reshape(-1, stride, 2, columns).transpose(1, 2).reshape(rows, columns)
    return _rescaled(value, tensors) - weight


def _rotations(weight: Tensor, tensors: Tensors) -> Tensor:
    """The Cayley transform (I + Q) (I - Q)^-1 of the skew part Q = B - B^T of each block B.

    A positive alpha limits the norm of all Q together to alpha * out, as LyCORIS trains it.
    Solved in float64, because the blocks are small.
    """
    blocks = tensors["oft_blocks"].double()
    skew = blocks - blocks.mT
    limit = float(tensors["alpha"]) * len(weight) if "alpha" in tensors else 0.0
    if limit > 0:
        norm = torch.linalg.vector_norm(skew)
        skew = skew * torch.where(norm > limit, limit / norm, torch.ones_like(norm))
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    rotations: Tensor = torch.linalg.solve(one - skew, one + skew, left=False)
    return rotations.to(weight.dtype)


def peft_oft_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """OFT as peft and OneTrainer write it; Qiu et al. 2025, arXiv 2506.19847: W' = W R^T.

    R is block-diagonal with one matrix for each block of n columns, or the same for all blocks.
    `oft_r` (blocks, n (n - 1) / 2) has the upper triangles of skew matrices Q, `oft_embedding_r`
    those of an embedding, for which W' = W R. R is the sum of `series`[i] Q^i, or without a series
    (I - Q)(I + Q)^-1. Computed in float64.
    """
    is_embedding = "oft_embedding_r" in tensors
    skew = _skew_matrices(tensors["oft_embedding_r" if is_embedding else "oft_r"], tensors)
    size = skew.shape[-1]
    one = torch.eye(size, dtype=skew.dtype, device=skew.device)
    if "series" in tensors:
        rotations = torch.zeros_like(skew)
        for factor in reversed(tensors["series"].tolist()):
            rotations = rotations @ skew + factor * one
    else:
        rotations = torch.linalg.solve(one + skew, one - skew, left=False)
    blocks = weight.reshape(len(weight), -1, size).transpose(0, 1)
    turned = blocks @ (rotations if is_embedding else rotations.mT).to(weight.dtype)
    return turned.transpose(0, 1).reshape(weight.shape) - weight


def _skew_matrices(triangles: Tensor, tensors: Tensors) -> Tensor:
    """Skew matrices (blocks, n, n) in float64 from their upper triangles (blocks, n (n - 1) / 2).

    OneTrainer's `scaled_oft` divides them by 2 sqrt(n - 1). In constrained OFT, none has a larger
    Frobenius norm than `limit` / sqrt(blocks).
    """
    size = skew_size(triangles.shape[1])
    row, column = torch.triu_indices(size, size, 1, device=triangles.device)
    upper = triangles.new_zeros((len(triangles), size, size), dtype=torch.float64)
    upper[:, row, column] = triangles.double()
    skew = upper - upper.mT
    if "scaled_oft" in tensors:
        skew = skew / (2 * math.sqrt(size - 1))
    if "limit" in tensors:
        limit = float(tensors["limit"]) / math.sqrt(len(skew))
        norm = torch.linalg.matrix_norm(skew, keepdim=True)
        skew = torch.where(norm > limit, skew * (limit / norm), skew)
    return skew


def _rescaled(weight: Tensor, tensors: Tensors) -> Tensor:
    return weight * tensors["rescale"].reshape(-1, 1) if "rescale" in tensors else weight


def glora_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """GLoRA as LyCORIS writes it; Chavan et al. 2023, arXiv 2306.07967.

    alpha / rank * (W a1 a2 + b1 b2), with a1 (in, rank), a2 (rank, in), b1 (out, rank) and
    b2 (rank, in). Files of older versions have the names of each pair exchanged.
    """
    a1, a2, b1, b2 = (tensors[name] for name in ("a1", "a2", "b1", "b2"))
    if a1.shape[0] != weight.shape[1]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    return (weight @ a1 @ a2).add_(b1 @ b2).mul_(_scale(tensors, rank=len(b2)))


def ia3_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """IA3 as LyCORIS writes it; Liu et al. 2022, arXiv 2205.05638: W' = (1 + w) W.

    One number per output, or per input if `on_input` is not zero.
    """
    scale = tensors["ia3"].flatten()
    return weight * (scale if tensors["on_input"].item() else scale.reshape(-1, 1))


def peft_ia3_delta(weight: Tensor, tensors: Tensors) -> Tensor:
    """IA3 as peft writes it: W' = l W, with l (out, 1) or (1, in)."""
    return weight * (tensors["ia3_l"] - 1)


def _scale(tensors: Tensors, *, rank: int) -> float:
    """The file's alpha / rank; 1 if it has no alpha."""
    return float(tensors["alpha"]) / rank if "alpha" in tensors else 1.0


DELTAS: dict[str, Callable[[Tensor, Tensors], Tensor]] = {
    "lora": lora_delta,
    "embedding": embedding_delta,
    "loha": loha_delta,
    "lokr": lokr_delta,
    "diff": full_delta,
    "norm": full_delta,
    "bias": full_delta,
    "oft": oft_delta,
    "boft": boft_delta,
    "glora": glora_delta,
    "ia3": ia3_delta,
    "peft_ia3": peft_ia3_delta,
    "peft_oft": peft_oft_delta,
}


def add_delta(weight: Tensor, delta: Tensor, tensors: Tensors, *, strength: float) -> None:
    """Add strength * delta to a weight; with DoRA strength * (W' - W).

    Overwrites both tensors, because new memory for every sum would cost more than the sums.

    DoRA is Liu et al. 2024, arXiv 2402.09353: W' = (W + delta) * scale / norm(W + delta), with the
    norm of each row, or of each column if `dora_scale` has one number per column. Trainers compute
    this. ComfyUI takes norm(W) for rows, which is not the weight that was trained.
    """
    scale = tensors.get("dora_scale", tensors.get("magnitude"))
    if scale is not None:
        is_per_row = scale.ndim == 1 or scale.shape == (len(weight), 1)
        axis = 1 if is_per_row else 0
        norm = torch.linalg.vector_norm(delta.add_(weight), dim=axis, keepdim=True)
        scale = scale.reshape(-1, 1) if is_per_row else scale
        # Rows without length stay zero, whatever their scale.
        delta.mul_(scale / norm.where(norm > 0, 1)).sub_(weight)
    weight.add_(delta, alpha=strength)
