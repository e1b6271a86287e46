"""Scales that are not understood, and other quantised formats, are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import CheckpointError
from model.files.checkpoint_check import check_parts
from model.files.layouts import find_parts
from tests.support.every_layout import CARD, MAIN, SHIPPED
from tests.support.float8 import scaled
from tests.support.refusals import message_of

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, str]], object]
LAYER = "net.blocks.0.mlp.layer1"
NAMES = {f"net.blocks.{index}.mlp.layer{layer}.weight" for index in range(6) for layer in (1, 2)}
FP8 = torch.float8_e4m3fn


def put(key: str, tensor: Tensor) -> Change:
    return lambda tensors, metadata: tensors.update({key: tensor})


def drop(key: str) -> Change:
    return lambda tensors, metadata: tensors.pop(key)


def settings(text: str, key: str = f"{LAYER}.comfy_quant") -> Change:
    return put(key, torch.tensor(list(text.encode()), dtype=torch.uint8))


def metadata(content: object) -> Change:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda tensors, entries: entries.update({"_quantization_metadata": text})


def drop_scales(tensors: Tensors, entries: dict[str, str]) -> None:
    for name in [name for name in tensors if name.endswith("_scale")]:
        del tensors[name]


ONE = torch.tensor(1.0)
REFUSED: list[tuple[str, Change, str]] = [
    ("old", drop(f"{LAYER}.scale_weight"), "lacks the scale"),
    ("old", put(f"{LAYER}.scale_weight", torch.ones(576, 1)), "scale_weight (F32, shape (576, 1))"),
    ("old", put(f"{LAYER}.scale_weight", torch.tensor(float("nan"))), "scale_weight"),
    ("old", put(f"{LAYER}.scale_weight", torch.tensor(float("inf"))), "is inf"),
    ("old", put(f"{LAYER}.scale_weight", torch.tensor(0.0)), "scale_weight is 0, but the values"),
    ("new", put(f"{LAYER}.weight_scale", torch.tensor(0.0)), "weight_scale is 0, but the values"),
    ("old", put(f"{LAYER}.scale_weight", torch.tensor(1, dtype=torch.int32)), "scale_weight (I32"),
    ("old", put(f"{LAYER}.weight_scale", ONE), "has another scale"),
    ("old", put("net.blocks.0.mlp.layer9.scale_weight", ONE), "layer9.weight is absent"),
    ("old", put("net.final_layer.linear.scale_weight", ONE), "linear.weight is BF16"),
    ("old", put(f"{LAYER}.scale_bias", ONE), "scale_bias"),
    ("old", put(f"{LAYER}.weight", torch.ones(576, 192, dtype=torch.bfloat16)), "is BF16"),
    ("new", drop(f"{LAYER}.weight_scale"), "lacks the scale"),
    ("new", settings('{"format": "int8_tensorwise", "convrot": true}'), "int8_tensorwise"),
    ("new", settings('{"format": "nvfp4"}'), "nvfp4"),
    ("new", settings('{"format": "mxfp8"}'), "mxfp8"),
    ("new", settings('{"format": "float8_e5m2"}'), "but its format float8_e5m2"),
    ("new", settings('{"format": "float8_e4m3fn", "convrot": true}'), "convrot"),
    ("new", settings('{"format": 1}'), "(1)"),
    ("new", settings("[]"), "not a JSON object"),
    ("new", settings("{"), "not JSON"),
    ("new", settings('{"format": "float8_e4m3fn"}', "net.x.comfy_quant"), "net.x.weight is absent"),
    ("new", put(f"{LAYER}.comfy_quant", torch.ones(9999, dtype=torch.uint8)), "comfy_quant"),
    ("new", put(f"{LAYER}.comfy_quant", torch.ones(9)), "comfy_quant"),
    ("new", put(f"{LAYER}.weight_scale", torch.ones(576, 6, dtype=torch.uint8)), "weight_scale"),
    ("metadata", metadata({"layers": {LAYER: {"format": "nvfp4"}}}), "nvfp4"),
    ("metadata", metadata({"layers": {LAYER: {"format": "float8_e4m3fn", "x": 1}}}), "with x"),
    (
        "metadata",
        metadata({"layers": {"net.final_layer.linear": {"format": "float8_e4m3fn"}}}),
        "net.final_layer.linear.weight is BF16",
    ),
    ("metadata", drop_scales, "lacks the scale"),
    ("metadata", metadata({"layers": 1}), "has no layers"),
    ("metadata", metadata("{"), "not JSON"),
    ("plain", put("net.scaled_fp8", torch.zeros(2, dtype=FP8)), "none is float8"),
    ("plain", put(f"{LAYER}.scale_weight", ONE), "layer1.weight is BF16"),
    ("plain", put(f"{LAYER}.weight", torch.ones(576, 192, dtype=torch.int8)), "(int8)"),
    ("plain", put(f"{LAYER}.weight", torch.ones(9, dtype=torch.uint8)), "int8 or packed"),
    ("plain", put(f"{LAYER}.weight", torch.ones(576, 192, dtype=torch.float64)), "F64 values"),
    ("plain", put(f"{LAYER}.weight", torch.ones(576, 192).to(torch.float8_e4m3fnuz)), "FNUZ"),
    ("plain", put(f"{LAYER}.weight_scale_2", ONE), "NVFP4"),
    ("plain", put(f"{LAYER}.weight_scale_inv", torch.ones(5, 2)), "block-scaled float8"),
    ("plain", put(f"{LAYER}.weight.absmax", ONE), "NF4"),
    ("plain", put(f"{LAYER}.weight.quant_state.bitsandbytes__nf4", ONE), "NF4"),
    ("plain", put(f"{LAYER}.SCB", ONE), "bitsandbytes"),
    ("plain", put(f"{LAYER}.qweight", torch.ones(2, dtype=torch.int32)), "GPTQ or AWQ"),
    ("plain", put(f"{LAYER}.wscales", ONE), "SVDQuant"),
    ("plain", put(f"{LAYER}.weight._data", torch.ones(2, dtype=torch.int8)), "quanto"),
    ("plain", put(f"{LAYER}.weight_codebook", torch.ones(16)), "int4"),
]


def test_what_is_not_understood_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    wrong = []
    plain = load_file(SHIPPED / MAIN)
    for layout, change, named in REFUSED:
        entries: dict[str, str] = {}
        stored = dict(plain)
        if layout != "plain":
            stored, _, entries = scaled(plain, layout=layout, names=NAMES, marker="net.")
        change(stored, entries)
        save_file(stored, path, metadata=entries)
        message = message_of(CheckpointError, lambda: check_parts(find_parts(path), CARD))
        if named not in message:
            wrong.append((layout, named, message))
    assert wrong == []


def test_scales_of_every_precision_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stored, _, _ = scaled(load_file(SHIPPED / MAIN), layout="old", names=NAMES, marker="net.")
    for scale in (
        torch.tensor(0.375),
        torch.tensor([0.375]),
        torch.tensor([[0.375]]),
        torch.tensor(0.375, dtype=torch.bfloat16),
        torch.tensor(0.375, dtype=torch.float16),
    ):
        save_file(stored | {f"{LAYER}.scale_weight": scale}, path)
        assert find_parts(path)["transformer"].tensors[f"{LAYER}.weight"].scale == 0.375


def test_a_weight_of_zeros_may_have_the_scale_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stored, _, _ = scaled(load_file(SHIPPED / MAIN), layout="old", names=NAMES, marker="net.")
    zeros = torch.zeros(stored[f"{LAYER}.weight"].shape)
    zeros[0] = -0.0
    changed = {f"{LAYER}.scale_weight": torch.tensor(0.0), f"{LAYER}.weight": zeros.to(FP8)}
    save_file(stored | changed, path)
    assert find_parts(path)["transformer"].tensors[f"{LAYER}.weight"].scale == 0


def test_a_plain_float8_part_may_stand_beside_a_scaled_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stored, _, _ = scaled(load_file(SHIPPED / MAIN), layout="old", names=NAMES, marker="net.")
    prefix = "text_encoders.qwen3_06b.transformer."
    stored[f"{prefix}model.layers.0.mlp.up_proj.weight"] = torch.ones(256, 128).to(FP8)
    save_file(stored, path)
    assert set(find_parts(path)) == {"transformer", "conditioner", "text_encoder"}
