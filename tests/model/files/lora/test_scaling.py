"""Alpha that is no tensor: in the metadata, or in peft's configuration next to the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import LoraUnusable
from model.files.lora.plan import LoraContents, plan_changes
from model.files.lora.targets import LoraTarget, stem_table
from model.files.safetensors_header import StoredTensor

K = LoraTarget(
    "transformer", "transformer_blocks.0.attn2.to_k", "blocks.0.cross_attn.k_proj", (12, 8)
)
QWEN = LoraTarget("text_encoder", "layers.0.mlp.up_proj", "layers.0.mlp.up_proj", (10, 6))
TABLE = stem_table([K, QWEN])
RANK = 4


def contents(
    metadata: dict[str, str], config: dict[str, Any] | None = None, *, has_alpha: bool = False
) -> LoraContents:
    shapes: dict[str, tuple[int, ...]] = {
        "lora_down.weight": (RANK, 8),
        "lora_up.weight": (12, RANK),
    }
    if has_alpha:
        shapes["alpha"] = ()
    stem = "diffusion_model.blocks.0.cross_attn.k_proj"
    tensors = {
        f"{stem}.{end}": StoredTensor(Path("a"), f"{stem}.{end}", "F32", shape, 0, 0)
        for end, shape in shapes.items()
    }
    return LoraContents(tensors, metadata, config)


def kohya(alpha: str, rank: str) -> dict[str, str]:
    return {"ss_network_alpha": alpha, "ss_network_dim": rank}


def diffusers(**config: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps(config)}


STATED: list[tuple[dict[str, str], dict[str, Any] | None, float | None]] = [
    ({}, None, None),
    (kohya("16", "4"), None, 16),
    (kohya("16.0", "4"), None, 16),
    ({"ss_network_dim": "4"}, None, None),
    (kohya("None", "4"), None, None),
    (diffusers(**{"transformer.r": 4, "transformer.lora_alpha": 16}), None, 16),
    (diffusers(r=4, lora_alpha=16), None, 16),
    (diffusers(**{"text_encoder.r": 2, "text_encoder.lora_alpha": 9}), None, None),
    (diffusers(r=4, lora_alpha=16, use_rslora=True), None, 32),
    (
        diffusers(r=2, lora_alpha=1, rank_pattern={"to_k": 4}, alpha_pattern={"attn2.to_k": 6}),
        None,
        6,
    ),
    ({}, {"r": 4, "lora_alpha": 16}, 16),
    ({}, {"r": 4, "lora_alpha": 16, "alpha_pattern": {"cross_attn.k_proj": 3}}, 3),
    ({}, {"r": 4, "lora_alpha": 16, "alpha_pattern": {"o_k": 3, "^to_k": 3}}, 16),
    (kohya("16", "4"), {"r": 4, "lora_alpha": 16}, 16),
]


def test_one_statement_gives_alpha() -> None:
    found = []
    for metadata, config, _ in STATED:
        (change,) = plan_changes(contents(metadata, config), TABLE).changes
        found.append((metadata, config, change.alpha))
    assert found == STATED


def test_a_tensor_goes_before_every_statement() -> None:
    for metadata in (kohya("16", "4"), kohya("16", "8")):
        (change,) = plan_changes(contents(metadata, has_alpha=True), TABLE).changes
        assert change.alpha is None
        assert "alpha" in change.keys


REFUSED: list[tuple[dict[str, str], dict[str, Any] | None, str]] = [
    (kohya("16", "8"), None, "contradicts itself: ss_network_alpha says rank 8"),
    (kohya("16", "Dynamic"), None, "for a number"),
    ({"ss_network_alpha": "16"}, None, "without one alpha and one rank"),
    (kohya("16", "4"), {"r": 4, "lora_alpha": 8}, "contradicts itself about alpha"),
    (diffusers(r=4), None, "without one alpha and one rank"),
    (diffusers(r=4, lora_alpha="x"), None, "for a number"),
    (diffusers(r=4, lora_alpha=1, rank_pattern={"to_k": 2}), None, "says rank 2"),
    ({"lora_adapter_metadata": "[" * 9}, None, "cannot be read"),
    ({}, {"r": 4, "lora_alpha": 16, "init_lora_weights": "pissa_niter_4"}, "base model prepared"),
    ({}, {"r": 4, "lora_alpha": 16, "fan_in_fan_out": True}, "transposed"),
]


def test_contradictory_and_incomplete_statements_are_refused() -> None:
    wrong = []
    for metadata, config, reason in REFUSED:
        try:
            plan_changes(contents(metadata, config), TABLE)
        except LoraUnusable as exc:
            if reason in str(exc):
                continue
        wrong.append((metadata, config))
    assert wrong == []


def test_statements_that_cannot_be_read_are_refused_without_a_checkpoint() -> None:
    with pytest.raises(LoraUnusable, match="without one alpha"):
        plan_changes(contents({"ss_network_alpha": "16"}), None)
