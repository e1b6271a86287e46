"""Checks the types and shapes of a LoRA's tensors against the weight that they change."""

import math
from collections.abc import Mapping

from model.errors import LoraUnusable
from model.files.lora.keys import Method
from model.files.lora.targets import LoraTarget, Shape
from model.files.safetensors_header import StoredTensor

_DTYPES = frozenset({"F32", "F16", "BF16"})
_NUMBER_DTYPES = _DTYPES | {"F64", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_NUMBERS = frozenset({"alpha", "on_input", "scaled_oft"})


def without_kernel(role: str, shape: Shape) -> Shape:
    """The shape without the axes of a 1x1 convolution: (4, 128, 1, 1) is (4, 128)."""
    has_kernel = role != "oft_blocks" and len(shape) > 2 and set(shape[2:]) == {1}
    return shape[:2] if has_kernel else shape


def change_columns(
    target: LoraTarget | None,
    method: Method,
    keys: Mapping[str, str],
    entries: Mapping[str, StoredTensor],
) -> int | None:
    """The columns of the change of a matrix, which may include the target's dropped columns.

    None for a vector. Without a target only types, scales and the tensors' fit are checked.

    Raises:
        LoraUnusable: a tensor has another type, or its shape does not fit; names the keys.
    """
    stored = {role: entries[key] for role, key in keys.items()}
    for role, entry in stored.items():
        if entry.dtype not in (_NUMBER_DTYPES if role in _NUMBERS else _DTYPES):
            raise LoraUnusable(f"{entry.key} is {entry.dtype}; weights must be F32, F16 or BF16")
        if role in _NUMBERS and entry.shape not in {(), (1,)}:
            raise LoraUnusable(f"{entry.key} has shape {entry.shape}, must be one number")
    shapes = {role: without_kernel(role, entry.shape) for role, entry in stored.items()}
    if target is None:
        shape = _shape_without_target(method, shapes)
    else:
        shape = next((s for s in _wanted(target, method) if _fits(method, shapes, s)), None)
    if shape is None:
        listed = ", ".join(f"{keys[role]} {stored[role].shape}" for role in sorted(stored))
        weight = f"{target.original} of shape {_stored_shape(target)}" if target else "any weight"
        raise LoraUnusable(f"does not fit {weight}: {listed}")
    _check_scales(stored, shapes, shape)
    return shape[1] if len(shape) == 2 else None


def _stored_shape(target: LoraTarget) -> Shape:
    if len(target.shape) == 2:
        return target.shape[0], target.shape[1] + target.dropped_columns
    return target.shape


def _wanted(target: LoraTarget, method: Method) -> list[Shape]:
    """The shapes that a change of the target may have."""
    if method == "bias":
        return [(target.bias,)] if target.bias else []
    return list(dict.fromkeys([target.shape, _stored_shape(target)]))


def _shape_without_target(method: Method, shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape that the tensors give by themselves; any shape if they leave it open."""
    if method in ("lora", "loha", "lokr", "embedding"):
        return _product_shape(method, shapes)
    if method == "glora":
        b1, b2 = shapes["b1"], shapes["b2"]
        matrix = _matrix_product(b1, b2) or _matrix_product(b2, b1)
        return matrix if matrix and _fits(method, shapes, matrix) else None
    if method in ("oft", "boft"):
        blocks = shapes["oft_blocks"]
        rows = blocks[-3] * blocks[-1] if len(blocks) > 2 else 0
        return (rows, 1) if _fits(method, shapes, (rows, 1)) else None
    if method == "peft_oft":
        triangles = _triangles(shapes)
        columns = triangles[0] * skew_size(triangles[1]) if len(triangles) == 2 else 0
        return (1, columns) if _fits(method, shapes, (1, columns)) else None
    return (1, 1)


def _fits(method: Method, shapes: Mapping[str, Shape], wanted: Shape) -> bool:
    """Whether tensors of these shapes change a weight of the shape `wanted`."""
    if method in ("diff", "norm", "bias"):
        (shape,) = shapes.values()
        return shape == wanted and (method == "diff" or len(wanted) == 1)
    if len(wanted) != 2:
        return False
    rows, columns = wanted
    if method in ("oft", "boft"):
        return _blocks_fit(shapes["oft_blocks"], rows)
    if method == "peft_oft":
        return _triangles_fit(_triangles(shapes), columns)
    if method == "glora":
        return is_glora(shapes, rows, columns) != is_old_glora(shapes, rows, columns)
    if method == "ia3":
        return shapes["ia3"] in {(rows,), (columns,), (1, rows), (1, columns)}
    if method == "peft_ia3":
        return shapes["ia3_l"] in {(rows, 1), (1, columns)}
    return _product_shape(method, shapes) == wanted


def _blocks_fit(blocks: Shape, rows: int) -> bool:
    """Whether rotation blocks (count, size, size), or (factors, count, size, size), fit."""
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or 0 in blocks:
        return False
    count, size = blocks[-3], blocks[-1]
    is_butterfly = len(blocks) == 4
    if is_butterfly and (blocks[0] > rows or size % 2 or rows % (2 ** (blocks[0] - 1) * size)):
        return False
    return count * size == rows


def skew_size(count: int) -> int:
    """The size n of a skew-symmetric matrix whose upper triangle has `count` = n (n - 1) / 2."""
    return (1 + math.isqrt(1 + 8 * count)) // 2


def _triangles(shapes: Mapping[str, Shape]) -> Shape:
    return shapes.get("oft_r") or shapes["oft_embedding_r"]


def _triangles_fit(triangles: Shape, columns: int) -> bool:
    """Whether upper triangles (blocks, n (n - 1) / 2) fit. One block may serve for all."""
    if len(triangles) != 2 or 0 in triangles:
        return False
    blocks, count = triangles
    size = skew_size(count)
    is_triangle = size * (size - 1) == 2 * count
    return is_triangle and (blocks * size == columns or (blocks == 1 and columns % size == 0))


def is_glora(shapes: Mapping[str, Shape], rows: int, columns: int) -> bool:
    """Whether the tensors give W a1 a2 + b1 b2, as LyCORIS 2 and later write them."""
    a, b = _matrix_product(shapes["a1"], shapes["a2"]), _matrix_product(shapes["b1"], shapes["b2"])
    return a == (columns, columns) and b == (rows, columns)


def is_old_glora(shapes: Mapping[str, Shape], rows: int, columns: int) -> bool:
    """Whether the tensors give W a2 a1 + b2 b1, as older versions of LyCORIS write them."""
    a, b = _matrix_product(shapes["a2"], shapes["a1"]), _matrix_product(shapes["b2"], shapes["b1"])
    return a == (columns, columns) and b == (rows, columns)


def _check_scales(
    stored: Mapping[str, StoredTensor], shapes: Mapping[str, Shape], shape: Shape
) -> None:
    rows, columns = shape if len(shape) == 2 else (shape[0], 0)
    allowed: dict[str, set[Shape]] = {
        "dora_scale": {(rows,), (rows, 1), (1, columns)},
        "magnitude": {(rows,), (rows, 1)},
        "rescale": {(rows,), (rows, 1)},
    }
    for role in allowed.keys() & shapes.keys():
        if shapes[role] not in allowed[role]:
            raise LoraUnusable(f"{stored[role].key} has shape {stored[role].shape}")


def _product_shape(method: Method, shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape of the change that these tensors give; None if they do not fit together."""
    if method == "lora":
        return _matrix_product(shapes["up"], shapes["down"])
    if method == "embedding":
        turned = _matrix_product(shapes["embedding_b"], shapes["embedding_a"])
        return (turned[1], turned[0]) if turned else None
    if method == "loha":
        first = _matrix_product(shapes["hada_w1_a"], shapes["hada_w1_b"])
        return first if first == _matrix_product(shapes["hada_w2_a"], shapes["hada_w2_b"]) else None
    first, second = _factor_shape(shapes, "lokr_w1"), _factor_shape(shapes, "lokr_w2")
    if first is None or second is None:
        return None
    return first[0] * second[0], first[1] * second[1]


def _factor_shape(shapes: Mapping[str, Shape], name: str) -> tuple[int, int] | None:
    """The shape of a factor of a Kronecker product. A factor is whole or a product of two."""
    if name not in shapes:
        return _matrix_product(shapes[f"{name}_a"], shapes[f"{name}_b"])
    whole = shapes[name]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _matrix_product(left: Shape, right: Shape) -> tuple[int, int] | None:
    """The shape of a matrix product."""
    if len(left) == len(right) == 2 and left[1] == right[0] > 0:
        return left[0], right[1]
    return None
