"""Recognises quantised weights: applies the scales of float8 weights, refuses other formats.

A float8 weight may have a scale: the weight is the stored value times the scale. ComfyUI stores it
in two ways. The older one has `X.scale_weight`, `X.scale_input` and one marker `scaled_fp8`; the
newer one has `X.weight_scale`, `X.input_scale`, and the format as JSON in a tensor `X.comfy_quant`
or in the file's metadata. The scales of inputs only matter for products of float8 matrices.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from model.errors import CheckpointError
from model.files.keymap import BUNDLE_PREFIXES, TRANSFORMER_PREFIXES
from model.files.safetensors_header import StoredTensor, read_bytes, read_number
from model.files.stored_weights.float8 import FLOAT8_NAMES

QUANTISATION_METADATA = "_quantization_metadata"
"""The key of the formats in the metadata of a file."""

_PLAIN = ("F32", "BF16", "F16")
_READABLE = "float32, bfloat16, float16 or float8 (E4M3, E5M2)"
_SCALE = re.compile(r"\.(scale_weight|weight_scale)$")
_INPUT_SCALE = re.compile(r"\.(scale_input|input_scale)$")
_FORMAT = re.compile(r"\.comfy_quant$")
_MARKER = re.compile(r"(^|\.)scaled_fp8$")
_EMBEDDING = re.compile(r"(^|\.)(embed|embed_tokens|lm_head)\.weight$")
_HARMLESS_SETTINGS = {"format", "full_precision_matrix_mult"}
_BUNDLES = tuple(chain.from_iterable(BUNDLE_PREFIXES.values()))
_MAX_FORMAT_BYTES = 4096
_ZEROS = b"\x00\x80"
"""The bytes of 0 and -0 in float8."""


_OTHER_NAMES = {
    "NVFP4": re.compile(r"\.weight_scale_2$"),
    "MXFP8": re.compile(r"\.weight_scalar$"),
    "block-scaled float8": re.compile(r"\.weight_scale_inv$"),
    "bitsandbytes (NF4, FP4 or int8)": re.compile(r"absmax|quant_(state|map)|\.SCB$"),
    "GPTQ or AWQ": re.compile(r"\.(qweight|qzeros|g_idx|scales|pre_quant_scale)$"),
    "SVDQuant": re.compile(r"\.(wscales|smooth_factor(_orig)?|wzeros)$"),
    "quanto": re.compile(r"\.weight\._(data|scale|shift)$"),
    "int4": re.compile(r"\.weight_(codebook|s_rel|s_channel|packed|zero_point|shape)$"),
}
_OTHER_DTYPES = {
    "I8": "int8", "U8": "int8 or packed", "I32": "packed", "I4": "int4", "U4": "int4",
    "F4": "float4", "F4_E2M1": "float4", "F6_E2M3": "float6", "F6_E3M2": "float6",
    "F8_E8M0": "MX", "F8_E4M3FNUZ": "float8 FNUZ", "F8_E5M2FNUZ": "float8 FNUZ",
}  # fmt: skip


def apply_scales(
    tensors: Mapping[str, StoredTensor], metadata: Iterable[Mapping[str, str]]
) -> tuple[dict[str, StoredTensor], list[str], list[str]]:
    """Give the float8 weights their scales.

    Returns the weights, the keys of the scales and markers, which are not weights, and the reasons
    that some weights cannot be read.
    """
    extras = {
        name: tensor
        for name, tensor in tensors.items()
        if any(p.search(name) for p in (_SCALE, _INPUT_SCALE, _FORMAT, _MARKER))
    }
    weights = {name: tensor for name, tensor in tensors.items() if name not in extras}
    refused = next(filter(None, map(_other_format, [*weights.values(), *extras.values()])), None)
    if refused:
        return weights, [], [refused]
    try:
        layers = list(_formats(extras, metadata))
        for place, layer, settings in layers:
            _require_float8(place, layer, settings, weights)
        _require_known_extras(weights, extras)
        for name in filter(_SCALE.search, extras):
            weight = _SCALE.sub("", name) + ".weight"
            weights[weight] = _scaled(weights[weight], extras[name])
        _require_scales(weights, extras, {layer for _, layer, _ in layers})
    except CheckpointError as exc:
        return weights, [], [str(exc)]
    return weights, [tensor.key for tensor in extras.values()], []


def is_float8(tensor: StoredTensor) -> bool:
    """Whether the tensor holds float8 values, which loading widens."""
    return tensor.dtype in FLOAT8_NAMES


def _other_format(tensor: StoredTensor) -> str | None:
    """Why a tensor cannot be read: it belongs to another quantised format."""
    found = next((what for what, name in _OTHER_NAMES.items() if name.search(tensor.key)), None)
    if not found and tensor.dtype not in (*_PLAIN, *FLOAT8_NAMES) and not _is_extra(tensor):
        found = _OTHER_DTYPES.get(tensor.dtype)
        if not found:
            return (
                f"{tensor.path}: {tensor.key} has {tensor.dtype} values; only {_READABLE} is read"
            )
    if not found:
        return None
    return (
        f"{tensor.path}: {tensor.key} ({tensor.dtype}) is quantised ({found}), "
        f"which is not supported; only {_READABLE} is read"
    )


def _is_extra(tensor: StoredTensor) -> bool:
    return any(p.search(tensor.key) for p in (_SCALE, _FORMAT))


def _formats(
    extras: Mapping[str, StoredTensor], metadata: Iterable[Mapping[str, str]]
) -> Iterator[tuple[str, str, Any]]:
    """Yield where a layer's format is stored, the layer's name and the format."""
    for name in filter(_FORMAT.search, extras):
        tensor = extras[name]
        place = f"{tensor.path}: {tensor.key}"
        if tensor.dtype != "U8" or tensor.size > _MAX_FORMAT_BYTES:
            raise CheckpointError(f"{place} is not the JSON of a quantised format")
        yield (
            place,
            _FORMAT.sub("", name),
            _parsed(place, read_bytes(tensor).decode("utf-8", "replace")),
        )
    for entries in metadata:
        if QUANTISATION_METADATA in entries:
            place = f"the metadata {QUANTISATION_METADATA}"
            content = _parsed(place, entries[QUANTISATION_METADATA])
            layers = content.get("layers")
            if not isinstance(layers, dict):
                raise CheckpointError(f"{place} has no layers")
            for layer, settings in layers.items():
                yield place, layer, settings


def _parsed(place: str, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text.rstrip("\0"))
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{place} is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise CheckpointError(f"{place} is not a JSON object")
    return content


def _require_float8(
    place: str, layer: str, settings: Any, weights: Mapping[str, StoredTensor]
) -> None:
    """Check that a layer's format is the float8 format of its weight, without other steps."""
    name = settings.get("format") if isinstance(settings, dict) else None
    if name not in FLOAT8_NAMES.values():
        raise CheckpointError(
            f"{place}: {layer} is quantised ({name}), which is not supported; "
            f"only {_READABLE} is read"
        )
    unknown = sorted(set(settings) - _HARMLESS_SETTINGS)
    if unknown:
        raise CheckpointError(
            f"{place}: {layer} is quantised with {', '.join(unknown)}, which is not supported"
        )
    for prefix in (*TRANSFORMER_PREFIXES, *_BUNDLES):
        tensor = weights.get(f"{prefix}{layer}.weight")
        if tensor and FLOAT8_NAMES.get(tensor.dtype) != name:
            raise CheckpointError(f"{place}: {tensor.key} is {tensor.dtype}, but its format {name}")


def _require_known_extras(
    weights: Mapping[str, StoredTensor], extras: Mapping[str, StoredTensor]
) -> None:
    """Check that every scale belongs to one float8 weight and every marker is for float8."""
    scaled: dict[str, str] = {}
    for name, tensor in extras.items():
        place = f"{tensor.path}: {tensor.key}"
        if _MARKER.search(name):
            group = _group(name)
            if not any(is_float8(w) for key, w in weights.items() if _group(key) == group):
                raise CheckpointError(f"{place} marks quantised weights, but none is float8")
            continue
        weight = name.rpartition(".")[0] + ".weight"
        if weight not in weights or not is_float8(weights[weight]):
            dtype = weights[weight].dtype if weight in weights else "absent"
            raise CheckpointError(f"{place} belongs to a quantised weight, but {weight} is {dtype}")
        if _SCALE.search(name):
            if weight in scaled:
                raise CheckpointError(f"{place}: {weight} has another scale, {scaled[weight]}")
            scaled[weight] = tensor.key


def _require_scales(
    weights: Mapping[str, StoredTensor], extras: Mapping[str, StoredTensor], layers: set[str]
) -> None:
    """Check that the float8 weights of a part have scales if one has, or if `layers` are in it.

    Vectors and embeddings may have none: ComfyUI stores them without.
    """
    scaled = {_SCALE.sub("", name) + ".weight" for name in filter(_SCALE.search, extras)}
    groups = {_group(name) for name in (*extras, *layers)}
    for name, tensor in weights.items():
        is_bare = is_float8(tensor) and len(tensor.shape) > 1 and name not in scaled
        if is_bare and _group(name) in groups and not _EMBEDDING.search(name):
            raise CheckpointError(
                f"{tensor.path}: {tensor.key} ({tensor.dtype}) lacks the scale that other "
                "quantised weights have"
            )


def _group(name: str) -> str:
    """The part that a name belongs to in a file of several parts."""
    return next(filter(name.startswith, _BUNDLES), "")


def _scaled(weight: StoredTensor, stored_scale: StoredTensor) -> StoredTensor:
    """The weight with its scale, which may only be 0 if all values are 0."""
    scale = _scale(stored_scale)
    if scale == 0 and read_bytes(weight).strip(_ZEROS):
        raise CheckpointError(
            f"{stored_scale.path}: {stored_scale.key} is 0, but the values of {weight.key} are not"
        )
    return replace(weight, scale=scale)


def _scale(tensor: StoredTensor) -> float:
    place = f"{tensor.path}: {tensor.key} ({tensor.dtype}, shape {tensor.shape})"
    if tensor.count != 1 or tensor.dtype not in _PLAIN:
        raise CheckpointError(
            f"{place} is the scale of a quantised format that is not read; "
            "only one scale for the whole weight is supported"
        )
    scale = read_number(tensor)
    if not math.isfinite(scale):
        raise CheckpointError(f"{place} is {scale}")
    return scale
