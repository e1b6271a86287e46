"""Computes the weight change of each LoRA format: plain LoRA, LoHa, LoKr and DoRA.

`DELTAS` has one function per format. It takes the tensors of one layer by role and returns
delta, float32 (out, in), such that W' = W + strength * delta.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_EPSILON = torch.finfo(torch.float32).eps

Tensors = Mapping[str, Tensor]


def lora_delta(tensors: Tensors) -> Tensor:
    """LoRA, Hu et al. 2021, arXiv 2106.09685: alpha / rank * (up @ down).

    `up` is (out, rank), `down` is (rank, in).
    """
    up, down = tensors["up"], tensors["down"]
    return (_scale(tensors, rank=len(down)) * up) @ down


def loha_delta(tensors: Tensors) -> Tensor:
    """LoHa, Hyeon-Woo et al. 2022, arXiv 2108.06098: the Hadamard product of two low-rank products.

    alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), with w_a (out, rank) and w_b (rank, in).
    """
    first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
    second = tensors["hada_w2_a"] @ tensors["hada_w2_b"]
    return first.mul_(second).mul_(_scale(tensors, rank=len(tensors["hada_w1_b"])))


def lokr_delta(tensors: Tensors) -> Tensor:
    """LoKr, Yeh et al. 2024, arXiv 2309.14859: alpha / rank * kron(w1, w2).

    Each factor is whole or a product w_a @ w_b. If both are whole, there is no rank and alpha is
    unused.
    """
    ranks = [len(tensors[f"lokr_w{i}_b"]) for i in (2, 1) if f"lokr_w{i}_b" in tensors]
    first, second = (_lokr_factor(tensors, f"lokr_w{i}") for i in (1, 2))
    scale = _scale(tensors, rank=ranks[0]) if ranks else 1.0
    return torch.kron(scale * first, second)


def _lokr_factor(tensors: Tensors, name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"]


def _scale(tensors: Tensors, *, rank: int) -> float:
    """The file's alpha / rank; 1 if it has no alpha."""
    return float(tensors["alpha"]) / rank if "alpha" in tensors else 1.0


DELTAS: dict[str, Callable[[Tensors], Tensor]] = {
    "lora": lora_delta,
    "loha": loha_delta,
    "lokr": lokr_delta,
}


def add_delta(weight: Tensor, delta: Tensor, tensors: Tensors, *, strength: float) -> None:
    """Add strength * delta to a float32 weight (out, in); with DoRA strength * (W' - W).

    Overwrites both tensors, because new memory for every sum would cost more than the sums.

    DoRA is Liu et al. 2024, arXiv 2402.09353. Its two formats differ. ComfyUI's `dora_scale` gives
    W' = (W + delta) * dora_scale / norm(W), with the norm of each row, or of each column if the
    scale has one number per column. peft's magnitude vector gives
    W' = (W + delta) * magnitude / norm(W + delta), with the norm of each row, as published.
    """
    if "dora_scale" in tensors:
        scale = tensors["dora_scale"]
        is_per_row = scale.shape[0] == weight.shape[0]
        norm = torch.linalg.vector_norm(weight, dim=1 if is_per_row else 0, keepdim=True)
        scale = scale.reshape(-1, 1) if is_per_row else scale
        delta.add_(weight).mul_(scale / (norm + _EPSILON)).sub_(weight)
    elif "magnitude" in tensors:
        norm = torch.linalg.vector_norm(delta.add_(weight), dim=1, keepdim=True)
        delta.mul_(tensors["magnitude"].reshape(-1, 1) / (norm + _EPSILON)).sub_(weight)
    weight.add_(delta, alpha=strength)
