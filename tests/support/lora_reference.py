"""Computes what each LoRA method makes of a weight, from its definition, in numpy and float64.

Written by other ways than the service: entry by entry, with whole matrices instead of blocks, and
with eigenvectors instead of inverses. A change is W + strength * (W' - W).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Arrays = Mapping[str, Array]


def product(left: Array, right: Array) -> Array:
    """A matrix product as the sum of one outer product for each rank."""
    result: Array = np.zeros((left.shape[0], right.shape[1]))
    for column, row in zip(left.T, right, strict=True):
        result += np.multiply.outer(column, row)
    return result


def lora(weight: Array, at: Arrays, factor: float) -> Array:
    return weight + factor * product(at["up"], at["down"])


def embedding(weight: Array, at: Arrays, factor: float) -> Array:
    """Row i gets the i-th column of A, mapped by B."""
    rows = [at["embedding_b"] @ column for column in at["embedding_a"].T]
    return weight + factor * np.stack(rows)


def loha(weight: Array, at: Arrays, factor: float) -> Array:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    delta: Array = np.einsum("or,ri,os,si->oi", *(at[name] for name in names))
    return weight + factor * delta


def lokr(weight: Array, at: Arrays, factor: float) -> Array:
    """Entry (i, j) is w1[i // p, j // q] * w2[i % p, j % q] for a second factor of p x q.

    Two whole factors only have a scale if a rank is stated beside them.
    """
    first, second = (
        at[name] if name in at else product(at[f"{name}_a"], at[f"{name}_b"])
        for name in ("lokr_w1", "lokr_w2")
    )
    is_unscaled = {"lokr_w1", "lokr_w2"} <= at.keys() and "rank" not in at
    i, j = np.indices(weight.shape)
    p, q = second.shape
    delta = first[i // p, j // q] * second[i % p, j % q]
    result: Array = weight + (1.0 if is_unscaled else factor) * delta
    return result


def difference(weight: Array, at: Arrays, factor: float) -> Array:
    (delta,) = at.values()
    return weight + delta.reshape(weight.shape)


def rotation(block: Array) -> Array:
    """The Cayley transform by eigenvectors: i t turns into (1 + i t) / (1 - i t)."""
    turns, vectors = np.linalg.eigh(-1j * (block - block.T))
    turned = vectors @ np.diag((1 + 1j * turns) / (1 - 1j * turns)) @ vectors.conj().T
    return np.asarray(turned.real)


def limited(blocks: Array, rows: int, alpha: float | None) -> Array:
    """Blocks whose skew parts together have at most the norm alpha * rows, if alpha is positive."""
    skew = blocks - np.swapaxes(blocks, -1, -2)
    norm = np.sqrt((skew**2).sum())
    limit = (alpha or 0.0) * rows
    return blocks * (limit / norm) if 0 < limit < norm else blocks


def block_diagonal(blocks: Array) -> Array:
    """One square matrix with the rotations of these blocks on its diagonal."""
    count, size, _ = blocks.shape
    whole: Array = np.zeros((count * size, count * size))
    for index, block in enumerate(blocks):
        place = slice(index * size, (index + 1) * size)
        whole[place, place] = rotation(block)
    return whole


def oft(weight: Array, at: Arrays, alpha: float | None) -> Array:
    whole = block_diagonal(limited(at["oft_blocks"], len(weight), alpha))
    result: Array = whole.T @ weight
    return rescale(at) @ result if "rescale" in at else result


def boft(weight: Array, at: Arrays, alpha: float | None) -> Array:
    """Each factor as one matrix: rows are put side by side, rotated, and put back."""
    rows, result = len(weight), weight
    size = at["oft_blocks"].shape[-1]
    for level, blocks in enumerate(limited(at["oft_blocks"], rows, alpha)):
        stride = 2**level * size // 2
        side_by_side: Array = np.zeros((rows, rows))
        for row in range(rows):
            group, inside = divmod(row, 2 * stride)
            half, offset = divmod(inside, stride)
            side_by_side[group * 2 * stride + offset * 2 + half, row] = 1
        result = side_by_side.T @ block_diagonal(blocks) @ side_by_side @ result
    return rescale(at) @ result if "rescale" in at else result


def rescale(at: Arrays) -> Array:
    return np.diag(at["rescale"].ravel())


def glora(weight: Array, at: Arrays, factor: float) -> Array:
    """`a` maps inputs to inputs before the weight, `b` is added beside it."""
    a, b = product(at["a1"], at["a2"]), product(at["b1"], at["b2"])
    return weight @ (np.eye(len(a)) + factor * a) + factor * b


def ia3(weight: Array, at: Arrays, factor: float) -> Array:
    scale = np.diag(1 + at["ia3"].ravel())
    result: Array = weight @ scale if at["on_input"] else scale @ weight
    return result


def peft_ia3(weight: Array, at: Arrays, factor: float) -> Array:
    scale = np.diag(at["ia3_l"].ravel())
    return scale @ weight if at["ia3_l"].shape[1] == 1 else weight @ scale


def oft_triangles(weight: Array, at: Arrays, alpha: float | None) -> Array:
    """Whole input matrices R by the eigenvalues i t of each Q: a power series, or the transform.

    `series` and `limit` are what is stated beside the file's tensors.
    """
    is_embedding = "oft_embedding_r" in at
    triangles = at["oft_embedding_r" if is_embedding else "oft_r"]
    size = round((1 + np.sqrt(1 + 8 * triangles.shape[1])) / 2)
    whole: Array = np.zeros((weight.shape[1], weight.shape[1]))
    for index in range(weight.shape[1] // size):
        numbers = iter(triangles[index % len(triangles)])
        skew: Array = np.zeros((size, size))
        for row in range(size):
            for column in range(row + 1, size):
                skew[row, column] = next(numbers)
                skew[column, row] = -skew[row, column]
        if "scaled_oft" in at:
            skew /= np.sqrt(4 * (size - 1))
        length = np.sqrt((skew**2).sum())
        if "limit" in at and length > at["limit"] / np.sqrt(len(triangles)):
            skew *= at["limit"] / np.sqrt(len(triangles)) / length
        turns, vectors = np.linalg.eigh(-1j * skew)
        if "series" in at:
            values = np.polynomial.polynomial.polyval(1j * turns, at["series"])
        else:
            values = (1 - 1j * turns) / (1 + 1j * turns)
        place = slice(index * size, (index + 1) * size)
        whole[place, place] = (vectors @ np.diag(values) @ vectors.conj().T).real
    return weight @ (whole if is_embedding else whole.T)


def dora(weight: Array, changed: Array, scale: Array) -> Array:
    """Every row or column of the changed weight gets the length that `scale` says."""
    by_column = scale.ndim == 2 and scale.shape != (len(weight), 1)
    lines = changed.T if by_column else changed
    scaled = np.stack(
        [
            line * length / np.sqrt(line @ line)
            for line, length in zip(lines, scale.ravel(), strict=True)
        ]
    )
    return scaled.T if by_column else scaled


METHODS: dict[str, Callable[[Array, Arrays, float], Array]] = {
    "lora": lora,
    "embedding": embedding,
    "loha": loha,
    "lokr": lokr,
    "diff": difference,
    "norm": difference,
    "bias": difference,
    "glora": glora,
    "ia3": ia3,
    "peft_ia3": peft_ia3,
}
ROTATIONS: dict[str, Callable[[Array, Arrays, float | None], Array]] = {
    "oft": oft,
    "boft": boft,
    "peft_oft": oft_triangles,
}
SCALES = ("dora_scale", "magnitude")


def changed_weight(
    method: str, weight: Array, tensors: Arrays, *, alpha: float | None, rank: int, strength: float
) -> Array:
    """The weight after a change; `alpha` None means that the file does not say one."""
    at = {role: tensor for role, tensor in tensors.items() if role not in SCALES}
    if method in ROTATIONS:
        result = ROTATIONS[method](weight, at, alpha)
    else:
        result = METHODS[method](weight, at, 1.0 if alpha is None else alpha / rank)
    for role in SCALES:
        if role in tensors:
            result = dora(weight, result, tensors[role])
    return weight + strength * (result - weight)
